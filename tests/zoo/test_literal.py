"""Every family's Wanda masks against a literal Wanda: hooks on the whole model, block after block, plain loops."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.selection import Selection
from tamp_lightning.passes.trainer import Pruned, prune_stream
from tamp_lightning.stream import MemoryStream

from ..passes.test_literal import keep_rows
from .families import FAMILIES, WANDA, Family
from .newer import NEWER, qwen3_5_family

LITERAL = FAMILIES | NEWER


def masks_of(pruned: Pruned) -> dict[str, np.ndarray]:
    masks = {}
    for name, row in pruned.linears.items():
        bits = np.unpackbits(pruned.masks[name].numpy())[: math.prod(row["shape"])]
        masks[name] = bits.astype(bool).reshape(row["shape"])
    return masks


@torch.no_grad()
def literal_wanda(family: Family, names: list[str], kept: dict[str, int], blocks: str) -> dict[str, np.ndarray]:
    """Prune a fresh model one block at a time, by the norms of what its linears read in the model's own forward."""
    model, masks = family.make(), {}
    for k in range(len(model.get_submodule(blocks))):
        own = [name for name in names if name.startswith(f"{blocks}.{k}.")]
        norms = {name: np.zeros(model.get_submodule(name).weight.shape[1]) for name in own}
        for batch in family.batches():
            valid = batch["attention_mask"].bool().flatten().numpy()

            def add(_m: nn.Module, args: tuple, norm: np.ndarray, valid: np.ndarray = valid) -> None:
                tokens = args[0].double().numpy()
                norm += (tokens.reshape(-1, tokens.shape[-1])[valid] ** 2).sum(0)

            hooks = [
                model.get_submodule(name).register_forward_pre_hook(lambda m, a, norm=norm: add(m, a, norm))
                for name, norm in norms.items()
            ]
            model(**batch, use_cache=False)
            for hook in hooks:
                hook.remove()
        for name in own:
            weight = model.get_submodule(name).weight.data
            masks[name] = keep_rows(np.abs(weight.double().numpy()) * np.sqrt(norms[name]), kept[name])
            weight[~torch.from_numpy(masks[name])] = 0
    return masks


def prune(family: Family, batches: list, **method: object) -> tuple[Pruned, str]:
    stream = MemoryStream(family.make(), Selection(exclude=family.exclude))
    data = CalibrationData.from_batches(batches)
    return prune_stream(stream, data, Method(**method), progress=False, accelerator="cpu"), stream.facts.blocks


@pytest.mark.parametrize("name", LITERAL)
def test_masks_are_those_of_a_literal_wanda(name: str) -> None:
    family = LITERAL[name]
    pruned, blocks = prune(family, family.batches(), **WANDA)
    kept = {name: row["kept"] for name, row in pruned.linears.items()}
    ours, literal = masks_of(pruned), literal_wanda(family, list(kept), kept, blocks)
    assert ours.keys() == literal.keys()
    assert {name: int((ours[name] != literal[name]).sum()) for name in ours} == dict.fromkeys(ours, 0)


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_5_first_full", "lfm2_vl"])
def test_blocks_without_attention_take_all_tokens_and_the_plan_says_so(name: str) -> None:
    family = NEWER[name]
    pruned, blocks = prune(family, family.batches())
    attends = MemoryStream(family.make(), Selection(exclude=family.exclude)).facts.attention
    everything = sum(int(batch["attention_mask"].sum()) for batch in family.batches())
    samples = sum(len(batch["input_ids"]) for batch in family.batches())
    for linear, row in pruned.linears.items():
        block = int(linear.removeprefix(f"{blocks}.").partition(".")[0])
        assert ("tokens" in row) == (not attends[block])
        assert (row["tokens_per_sample"] == everything / samples) == (not attends[block])
    assert {row["tokens"] for row in pruned.linears.values() if "tokens" in row} == {"all"}


def test_no_block_sees_the_attention_of_another() -> None:
    family = qwen3_5_family("full_attention", "linear_attention", "linear_attention", "full_attention", linears=30)
    samples = [family.sample(("image",), 12, seed) for seed in range(4)]
    masks = [masks_of(prune(family, order)[0]) for order in (samples, samples[::-1])]
    assert all(np.array_equal(masks[0][name], masks[1][name]) for name in masks[0])
