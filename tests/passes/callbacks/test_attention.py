"""The last attention row is that of the real attention, and asking for it changes nothing."""

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from tamp_lightning.passes.callbacks.attention import IMPLEMENTATION, AttentionCollector, last_row
from tamp_lightning.stream import MemoryStream

from ...conftest import as_batch, toys
from ...stream.conftest import make_llama, make_llava, text_config


class Module:
    """As much of a LightningModule as the collector asks for."""

    def __init__(self, model, batch, walk="prune"):
        self.stream, self.walk, self.stage = MemoryStream(model), walk, "collect"
        self.block = model.get_decoder()
        self.current = type("Current", (), {"valid": batch["attention_mask"].bool()})


def make_mistral():
    torch.manual_seed(4)
    return MistralForCausalLM(text_config(MistralConfig, sliding_window=6, head_dim=8)).eval()


@torch.no_grad()
def eager_rows(model, batch):
    """Per block, per sample: row of the last valid token in the eager attention map, mean of heads."""
    model.set_attn_implementation("eager")
    maps = []
    handles = [
        block.self_attn.register_forward_hook(lambda _m, _a, output: maps.append(output[1]))
        for block in model.get_decoder().layers
    ]
    model(**batch, use_cache=False)
    for handle in handles:
        handle.remove()
    model.set_attn_implementation("sdpa")
    last = batch["attention_mask"].sum(1) - 1
    return [torch.stack([m[b, :, last[b]].mean(0) for b in range(len(last))]) for m in maps]


@torch.no_grad()
def collected_rows(model, batch, collector):
    """Per block, what the collector holds once that block has run without an attention mask."""
    rows = []
    handles = [
        block.register_forward_hook(lambda *_: rows.append(collector.rows)) for block in model.get_decoder().layers
    ]
    logits = model(**{k: v for k, v in batch.items() if k != "attention_mask"}, use_cache=False).logits
    for handle in handles:
        handle.remove()
    return rows, logits


@pytest.mark.parametrize(("make", "kinds"), [(make_llava, "ptp"), (make_llama, "ttt"), (make_mistral, "ttt")])
def test_row_is_that_of_eager_attention_with_padding_and_grouped_heads(make, kinds):
    model, batch, collector = make(), as_batch(toys(kinds)), AttentionCollector()
    expected = eager_rows(model, batch)
    module = Module(model, batch)
    collector.on_fit_start(None, module)
    collector.on_train_epoch_start(None, module)
    rows, _ = collected_rows(model, batch, collector)
    assert len(rows) == len(expected) == 3
    assert len({int(n) for n in batch["attention_mask"].sum(1)}) == 3
    for row, wanted in zip(rows, expected, strict=True):
        torch.testing.assert_close(row, wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(row.sum(1), torch.ones(3))
        assert bool((row[batch["attention_mask"] == 0] == 0).all())


@pytest.mark.parametrize("make", [make_llava, make_llama])
def test_logits_with_the_collector_are_bit_identical(make):
    batch = as_batch(toys("ptp" if make is make_llava else "ttt"))
    model, collector = make(), AttentionCollector()
    inputs = {k: v for k, v in batch.items() if k != "attention_mask"}
    with torch.no_grad():
        plain = model(**inputs, use_cache=False).logits
    module = Module(model, batch)
    collector.on_fit_start(None, module)
    collector.on_train_epoch_start(None, module)
    assert model.get_decoder().config._attn_implementation == IMPLEMENTATION
    rows, logits = collected_rows(model, batch, collector)
    assert torch.equal(logits, plain)
    assert rows[-1] is not None
    collector.on_fit_end(None, module)
    assert model.get_decoder().config._attn_implementation == "sdpa"
    assert collector.rows is None


def test_nothing_is_collected_while_measuring():
    model, batch, collector = make_llama(), as_batch(toys("tt")), AttentionCollector()
    module = Module(model, batch, walk="measure")
    collector.on_fit_start(None, module)
    collector.on_train_epoch_start(None, module)
    assert collected_rows(model, batch, collector)[0] == [None] * 3


def test_only_the_current_block_is_listened_to():
    model, batch, collector = make_llama(), as_batch(toys("tt")), AttentionCollector()
    module = Module(model, batch)
    module.block = model.get_decoder().layers[1]
    collector.on_fit_start(None, module)
    collector.on_train_epoch_start(None, module)
    first, second, third = collected_rows(model, batch, collector)[0]
    assert first is None
    assert second is third is not None
    collector.on_train_batch_start(None, module)
    assert collector.rows is None


def test_attention_that_cannot_be_watched_is_refused_and_left_alone():
    model = make_llama()
    model.set_attn_implementation("eager")
    collector, module = AttentionCollector(), Module(model, as_batch(toys("tt")))
    with pytest.raises(ValueError, match="attention implementation is 'eager': load the model with 'sdpa'"):
        collector.on_fit_start(None, module)
    collector.on_exception(None, module, ValueError())
    assert model.get_decoder().config._attn_implementation == "eager"


def test_last_row_by_hand():
    """One head, two tokens of width 1: softmax of (0, ln 3) is (1/4, 3/4); a mask leaves the second alone."""
    query = torch.tensor([[[[9.0], [1.0], [9.0]]], [[[2.0], [9.0], [9.0]]]])
    key = torch.log(torch.tensor([[[[1.0], [3.0], [5.0]]], [[[1.0], [3.0], [5.0]]]]))
    last = torch.tensor([1, 0])
    wanted = torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(last_row(query, key, last, 1.0), wanted)
    mask = torch.ones(1, 1, 3, 3, dtype=torch.bool)
    mask[0, 0, 1, 0] = False
    wanted[0] = torch.tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(last_row(query, key, last, 1.0, mask), wanted)
