"""The last attention row is that of the real attention, and asking for it changes nothing."""

from types import SimpleNamespace

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from tamp_lightning.passes.callbacks.attention import IMPLEMENTATION, AttentionCollector, last_row
from tamp_lightning.passes.contract import Pass
from tamp_lightning.stream import MemoryStream

from ...conftest import as_batch, toys
from ...stream.conftest import make_llama, make_llava, text_config


class Module:
    """As much of a LightningModule as the collector asks for."""

    def __init__(self, model, batch, walk="prune"):
        self.stream, self.now = MemoryStream(model), Pass(walk, 0, "collect", walk == "measure")
        self.index = 0
        mask = batch["attention_mask"].bool()
        self.current = SimpleNamespace(valid=mask, ids=torch.arange(len(mask)))


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


def noted(collector, block):
    assert collector.last is None or collector.last.block == block
    return collector.last and collector.last.row


@torch.no_grad()
def collected_rows(model, batch, collector):
    """Per block, what the collector holds once that block has run without an attention mask."""
    rows = []
    handles = [
        block.register_forward_hook(lambda *_, k=k: rows.append(noted(collector, k)))
        for k, block in enumerate(model.get_decoder().layers)
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
    assert model.get_decoder().config._attn_implementation == IMPLEMENTATION
    rows, logits = collected_rows(model, batch, collector)
    assert torch.equal(logits, plain)
    assert rows[-1] is not None
    collector.on_fit_end(None, module)
    assert model.get_decoder().config._attn_implementation == "sdpa"
    assert collector.last is None


def test_a_row_is_handed_out_for_its_own_block_and_batch_alone():
    model, batch, collector = make_llama(), as_batch(toys("tt")), AttentionCollector()
    module = Module(model, batch)
    collector.on_fit_start(None, module)
    assert collector.of(module) is None
    rows, _ = collected_rows(model, batch, collector)
    module.index = 2
    assert torch.equal(collector.of(module), rows[2])
    module.index = 1  # as if this block had no attention: that of another is never taken for it
    assert collector.of(module) is None
    module.index, module.current.ids = 2, torch.tensor([2, 3])
    assert collector.of(module) is None


def test_attention_outside_of_the_blocks_is_not_noted():
    model, batch, collector = make_llama(), as_batch(toys("tt")), AttentionCollector()
    other = make_llama()
    collector.on_fit_start(None, Module(model, batch))
    other.set_attn_implementation(IMPLEMENTATION)
    with torch.no_grad():
        other(**{k: v for k, v in batch.items() if k != "attention_mask"}, use_cache=False)
    assert collector.last is None


def test_nothing_is_collected_while_measuring():
    model, batch, collector = make_llama(), as_batch(toys("tt")), AttentionCollector()
    module = Module(model, batch, walk="measure")
    collector.on_fit_start(None, module)
    assert collected_rows(model, batch, collector)[0] == [None] * 3


@torch.no_grad()
def test_a_row_is_handed_out_for_its_block_and_samples_alone():
    model, batch, collector = make_llama(), as_batch(toys("tt")), AttentionCollector()
    module = Module(model, batch)
    collector.on_fit_start(None, module)
    model(**{k: v for k, v in batch.items() if k != "attention_mask"}, use_cache=False)
    module.index = 2
    assert collector.of(module) is collector.last.row, "the last block was the last to attend"
    module.index = 1
    assert collector.of(module) is None
    module.index, module.current.ids = 2, module.current.ids + 2
    assert collector.of(module) is None, "it is the row of other samples"


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
