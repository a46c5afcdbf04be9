"""What reaches the blocks, learnt without running one; and what is noticed when a model does more than its blocks."""

import pytest
import torch
from torch import nn
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaModel
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.stream import find_facts
from tamp_lightning.stream.calls import record_calls
from tamp_lightning.stream.verify import check_walk, token_guard

from .conftest import make_llama, make_qwen2, text_config

PATH = "model.layers"
IDS = torch.randint(1, 80, (2, 14), generator=torch.Generator().manual_seed(0))
VALID = torch.arange(14) < torch.tensor([[14], [9]])
BATCH = {"input_ids": IDS, "attention_mask": VALID.long()}


def make_gemma3():
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    torch.manual_seed(3)
    return Gemma3ForCausalLM(text_config(Gemma3TextConfig, head_dim=8, sliding_window=4, layer_types=kinds)).eval()


def recorded(model, batch=BATCH):
    hidden, calls = record_calls(model, PATH, batch)
    check_walk(model, find_facts(model), batch, hidden, calls)
    return hidden, calls


@pytest.mark.parametrize(
    ("make", "kinds"), [(make_llama, (0, 0, 0)), (make_qwen2, (0, 0, 0)), (make_gemma3, (0, 1, 0))]
)
def test_blocks_of_one_kind_share_what_they_are_called_with(make, kinds):
    model = make()
    _, calls = recorded(model)
    assert calls.kinds == kinds
    assert calls.replay is None
    assert not any(vars(block).get("forward") for block in model.model.layers)


def test_only_masks_that_say_no_more_than_causal_are_dropped():
    for make, dropped in ((make_llama, [True]), (make_gemma3, [False, True])):
        model = make()
        _, calls = recorded(model)
        unmasked = calls.drop_causal_mask(model.model.layers, VALID)
        assert [k["attention_mask"] is None for k in unmasked.kwargs] == dropped
        assert all(k["attention_mask"] is not None for k in calls.kwargs)
        short = VALID[:, :3]  # shorter than the window
        _, calls = recorded(model, {"input_ids": IDS[:, :3], "attention_mask": short.long()})
        assert all(k["attention_mask"] is None for k in calls.drop_causal_mask(model.model.layers, short).kwargs)


def test_a_block_that_is_not_causal_keeps_its_mask():
    model = make_llama()
    _, calls = recorded(model)
    model.model.layers[0].self_attn.is_causal = False
    assert calls.drop_causal_mask(model.model.layers, VALID).kwargs[0]["attention_mask"] is not None


def test_moving_keeps_what_is_shared():
    _, calls = recorded(make_gemma3())
    moved = calls.to("meta")
    first, second = (k["position_ids"] for k in moved.kwargs)
    assert first is second
    assert first.is_meta


class Between(LlamaModel):
    """Does something between its blocks."""

    how = "add"

    def forward(self, input_ids, attention_mask, **_):
        hidden = self.embed_tokens(input_ids)
        mask = create_causal_mask(self.config, hidden, attention_mask, None)
        cos, sin = self.rotary_emb(hidden, torch.arange(hidden.shape[1])[None])
        first = None
        for block in self.layers:
            scale = hidden.mean() if self.how == "kwargs" else 1
            hidden = block(hidden, attention_mask=mask, position_embeddings=(cos * scale, sin))
            first = hidden if first is None else first
            if self.how == "add":
                hidden = hidden + 1
            if self.how == "in_place":
                hidden += 1
            if self.how == "skip":
                hidden = hidden + first
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden))


def make_between(how):
    model = make_llama()
    model.model.__class__ = Between
    model.model.how = how
    return model


@pytest.mark.parametrize("how", ["add", "in_place", "kwargs"])
def test_what_happens_between_two_blocks_is_replayed(how):
    hidden, calls = recorded(make_between(how))
    assert calls.replay is not None
    assert calls.to("cpu").replay is not None
    # The embeddings are as they were before the stubs ran.
    assert torch.equal(hidden, make_llama().model.embed_tokens(IDS))


def test_what_happens_across_several_blocks_is_refused():
    with pytest.raises(ValueError, match="gives block 2 what blocks before its predecessor returned"):
        record_calls(make_between("skip"), PATH, BATCH)


def test_linears_that_see_something_else_than_the_tokens_are_refused():
    block, linears = nn.Sequential(nn.Linear(4, 4)), [Linear(0, "0", "layers.0.0", (4, 4))]
    for inputs, message in ((torch.zeros(3, 4), "reads a tensor"), (torch.zeros(1, 2, 4), "reads a tensor")):
        with pytest.raises(ValueError, match=message), token_guard(block, linears, (2, 14, 4)):
            block(inputs)
    with (
        pytest.raises(ValueError, match=r"layers\.0\.0 is called twice"),
        token_guard(block, linears, (2, 14, 4)),
    ):
        block(block(torch.zeros(2, 14, 4)))
    assert not block[0]._forward_pre_hooks
