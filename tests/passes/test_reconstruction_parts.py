"""Where a block is cut between attention and MLP, and that families of other layouts are trained all the same."""

import dataclasses

import pytest
import torch
from torch import nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.methods.options import Reconstruct
from tamp_lightning.passes.reconstruction_parts import parts_of, reach
from tamp_lightning.passes.trainer import prune_stream
from tamp_lightning.stream import MemoryStream

from ..conftest import WANDA, calibration, run, toys
from ..zoo.newer import NEWER


class Block(nn.Module):
    """A decoder block's children, called in an order of its own."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.mlp, self.attn = nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm, self.second = nn.LayerNorm(4), nn.LayerNorm(4)
        self.order = order.split()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for name in self.order:
            hidden = hidden + self.get_submodule(name)(hidden)
        return hidden


@dataclasses.dataclass(frozen=True)
class Named:
    name: str


@pytest.mark.parametrize(
    ("order", "cut"),
    [
        ("norm attn second mlp", "second"),
        ("attn norm mlp second", "norm"),  # norms after, as in OLMo 2
        ("norm attn mlp", None),  # both read the same norm
        ("norm mlp attn", None),
        ("norm attn drop second mlp", "second"),
    ],
)
def test_where_a_block_is_cut(order: str, cut: str | None) -> None:
    block, linears = Block(order), [Named("attn.o"), Named("mlp.up")]
    parts = parts_of(block, linears, order.split())
    assert [len(part.linears) for part in parts] == ([1, 1] if cut else [2])
    assert parts[0].cut is (block.get_submodule(cut) if cut else None)
    assert parts[-1].cut is None


def test_an_mlp_of_several_children_is_not_cut() -> None:
    """OPT's fc1 and fc2 stand in the block itself, with an activation between them."""
    block = nn.ModuleDict({name: nn.Identity() for name in ("norm", "attn", "second", "fc1", "act", "fc2")})
    parts = parts_of(block, [Named("attn.o"), Named("fc1"), Named("fc2")], list(block))
    assert [[linear.name for linear in part.linears] for part in parts] == [["attn.o"], ["fc1", "fc2"]]
    assert parts[0].cut is block["second"]
    [part] = parts_of(block, [Named("fc1"), Named("fc2")], list(block))
    assert part.cut is None


def test_a_cut_block_whose_norm_reads_tokens_in_one_row() -> None:
    family = NEWER["blip2"]  # whose language model is OPT
    result = prune_stream(
        MemoryStream(family.make()),
        CalibrationData.from_batches(family.batches()),
        dataclasses.replace(WANDA, reconstruct=Reconstruct(steps=8, lr=1e-3)),
        progress=False,
        accelerator="cpu",
    )
    assert all(row["block_error"]["reconstructed"] < row["block_error"]["pruned"] for row in result.linears.values())


def test_where_the_mlp_stands_beside_attention_with_a_norm_of_its_own_both_are_trained() -> None:
    config = GPTNeoXConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, pad_token_id=0
    )
    models = []
    for steps in (0, 8):
        torch.manual_seed(0)
        models.append(GPTNeoXForCausalLM(config).eval())
        method = dataclasses.replace(WANDA, reconstruct=Reconstruct(steps=steps, lr=1e-3))
        run(models[-1], calibration(toys("ttttt"), 1), method)
    plain, model = (dict(model.named_parameters()) for model in models)
    moved = {name.split(".")[3] for name in plain if not torch.equal(plain[name], model[name])}
    assert moved == {"attention", "mlp"}


def test_a_cut_block_computes_nothing_after_the_cut() -> None:
    block, hidden = Block("norm attn second mlp"), torch.randn(1, 3, 4)
    block.mlp.forward = None
    batch = dataclasses.make_dataclass("Batch", ["hidden", "kwargs"])(hidden, {})
    first = hidden + block.norm(hidden)
    assert torch.equal(reach(block, batch, block.second), first + block.attn(first))
    assert not block.second._forward_pre_hooks
