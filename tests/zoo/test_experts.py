"""Every expert's Wanda masks against a literal Wanda per expert, which knows how each family stacks and calls them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.methods.method import Method
from tamp_lightning.passes.trainer import prune_stream
from tamp_lightning.stream import DiskStream, MemoryStream, Stream

from ..conftest import hashes
from ..passes.test_literal import keep_rows
from .experts import WITH_EXPERTS
from .families import WANDA, Family
from .test_literal import masks_of, prune

SHRINK = 128


def gate_up(family: str, module: nn.Module, expert: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What gate and up make of tokens, as each family's own eager code computes them."""
    weight = module.gate_up_proj[expert]
    if family in ("aria", "llama4_moe"):
        return (x @ weight).chunk(2, dim=-1)
    if family == "gpt_oss":
        both = x @ weight + module.gate_up_proj_bias[expert]
        return both[:, ::2], both[:, 1::2]
    return F.linear(x, weight).chunk(2, dim=-1)


def activation(family: str, module: nn.Module, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    if family == "gpt_oss":
        gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
        return (up + 1) * gate * torch.sigmoid(gate * 1.702)
    if family == "step3p7":
        return module.act_fn(gate).clamp(max=module.limit) * up.clamp(-module.limit, module.limit)
    return module.act_fn(gate) * up


def matrices(family: str, module: nn.Module, expert: int) -> dict[str, torch.Tensor]:
    """The expert's matrices as [out, in]: views, so that they can be pruned."""
    both, down = module.gate_up_proj.data[expert], module.down_proj.data[expert]
    if family in ("aria", "gpt_oss", "llama4_moe"):
        both, down = both.T, down.T
    half = len(both) // 2
    gate, up = (both[::2], both[1::2]) if family == "gpt_oss" else (both[:half], both[half:])
    return {"gate_proj": gate, "up_proj": up, "down_proj": down}


def read_by(family: str, module: nn.Module, args: tuple) -> list[list[tuple[int, torch.Tensor]]]:
    """Of each token that a layer gets, its experts and what each reads [1, h]."""
    if family == "llama4_moe":  # the router's choice, and inputs times its scores
        hidden = args[0].reshape(-1, args[0].shape[-1])
        logits = module.router(hidden)[1]
        chosen = logits.topk(module.router.top_k).indices.tolist()
        return [[(e, hidden[t : t + 1] * logits[t, e].sigmoid()) for e in experts] for t, experts in enumerate(chosen)]
    hidden, index, _ = args
    count = len(module.down_proj)  # LongCat-Flash: a higher number gives the token back
    return [[(e, hidden[t : t + 1]) for e in experts if e < count] for t, experts in enumerate(index.tolist())]


class Watch:
    """Squares of what each expert of a layer reads, token by token."""

    def __init__(self, family: str, module: nn.Module, given: Any) -> None:
        self.family, self.module, self.given = family, module, given
        self.sums: dict[tuple[int, str], Any] = defaultdict(float)
        self.tokens: dict[int, int] = defaultdict(int)

    def __call__(self, module: nn.Module, args: tuple) -> None:
        tokens = read_by(self.family, module, args)
        valid = self.given(len(tokens))
        for t, experts in enumerate(tokens):
            for expert, x in experts if valid[t] else ():
                own = self.module
                act = activation(self.family, own, *gate_up(self.family, own, expert, x))
                self.tokens[expert] += 1
                self.sums[expert, "in"] += x[0].double().numpy() ** 2
                self.sums[expert, "act"] += act[0].double().numpy() ** 2

    def norm(self, expert: int, side: str) -> np.ndarray:
        mean = sum(v for (_, s), v in self.sums.items() if s == side) / sum(self.tokens.values())
        total = self.sums[expert, side] + SHRINK * mean
        return np.sqrt(total / (self.tokens[expert] + SHRINK))


def layers_of(block: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in block.named_modules() if hasattr(m, "down_proj") and isinstance(m.down_proj, nn.Parameter)}


class Dense:
    """Squares of what a linear reads."""

    def __init__(self, module: nn.Module, given: Any) -> None:
        self.module, self.given, self.norm = module, given, np.zeros(module.weight.shape[1])

    def __call__(self, module: nn.Module, args: tuple) -> None:
        tokens = args[0].double().numpy().reshape(-1, args[0].shape[-1])
        self.norm += (tokens[self.given(len(tokens))] ** 2).sum(0)


class Batch:
    """Which tokens of the batch that runs are no padding, and which of them a layer is given."""

    def __init__(self, batch: dict[str, torch.Tensor]) -> None:
        self.valid = batch["attention_mask"].bool().flatten().numpy()
        self.types = batch.get("moe_mm_token_type_ids")

    def given(self, name: str, count: int) -> np.ndarray:
        valid = self.valid
        if self.types is not None and self.types.any() and "_moe." in name:  # ERNIE: layers by modality
            valid = valid[(self.types.flatten().numpy() > 0) == ("vision" in name)]
        assert len(valid) == count
        return valid


@torch.no_grad()
def literal(family_name: str, family: Family, kept: dict[str, int], blocks: str) -> dict[str, np.ndarray]:
    """Prune a fresh model one block at a time: linears and experts by the norms of what they read."""
    model, masks, now = family.make(), {}, []
    for k, block in enumerate(model.get_submodule(blocks)):
        given = {n: (lambda count, n=n: now[-1].given(n, count)) for n, _ in block.named_modules()}
        plain = {n: Dense(m, given[n]) for n, m in block.named_modules() if f"{blocks}.{k}.{n}" in kept}
        watches = {n: Watch(family_name, m, given[n]) for n, m in layers_of(block).items()}
        hooks = [w.module.register_forward_pre_hook(w) for w in plain.values()]
        for n, watch in watches.items():
            place = n.rpartition(".")[0] if family_name == "llama4_moe" else n
            hooks.append(block.get_submodule(place).register_forward_pre_hook(watch))
        for batch in family.batches():
            now.append(Batch(batch))
            model(**batch, use_cache=False)
        for hook in hooks:
            hook.remove()
        weights = {n: (w.module.weight.data, np.sqrt(w.norm)) for n, w in plain.items()}
        for layer, watch in watches.items():
            for expert in range(len(watch.module.down_proj)):
                for kind, weight in matrices(family_name, watch.module, expert).items():
                    side = "act" if kind == "down_proj" else "in"
                    weights[f"{layer}.{expert}.{kind}"] = weight, watch.norm(expert, side)
        for n, (weight, norm) in weights.items():
            full = f"{blocks}.{k}.{n}"
            masks[full] = keep_rows(np.abs(weight.double().numpy()) * norm, kept[full])
            weight[~torch.from_numpy(masks[full])] = 0
    return masks


@pytest.mark.filterwarnings("ignore:.*matrices of experts")
@pytest.mark.parametrize("name", WITH_EXPERTS)
def test_masks_are_those_of_a_literal_wanda_per_expert(name: str) -> None:
    family = WITH_EXPERTS[name]
    pruned, blocks = prune(family, family.batches(), **WANDA)
    assert len(pruned.linears) == family.linears
    kept = {n: row["kept"] for n, row in pruned.linears.items()}
    ours, theirs = masks_of(pruned), literal(name, family, kept, blocks)
    assert ours.keys() == theirs.keys()
    assert {n: int((ours[n] != theirs[n]).sum()) for n in ours} == dict.fromkeys(ours, 0)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*matrices of experts")
@pytest.mark.parametrize("name", WITH_EXPERTS)
def test_the_plan_is_met_in_the_model_and_all_else_stays(name: str) -> None:
    family = WITH_EXPERTS[name]
    model, dense = family.make(), dict(family.make().named_parameters())
    before = [dense[n].clone() for n in dense]
    stream = MemoryStream(model)
    masks = masks_of(prune_model(stream, family, WANDA))
    parameters = {f"{stream.facts.blocks}.{x.block}.{x.parameter}" for x in stream.facts.all_linears}
    for linear in stream.facts.all_linears:
        block = model.get_submodule(f"{stream.facts.blocks}.{linear.block}")
        was = linear.part(dense[f"{stream.facts.blocks}.{linear.block}.{linear.parameter}"])
        mask = torch.from_numpy(masks[linear.full])
        assert torch.equal(linear.weight(block), torch.where(mask, was, 0.0))
    for (full, value), was in zip(model.named_parameters(), before, strict=True):
        assert full in parameters or torch.equal(value, was)


@pytest.mark.filterwarnings("ignore:.*matrices of experts")
@pytest.mark.parametrize("name", WITH_EXPERTS)
def test_from_disk_it_is_the_same_and_what_is_written_loads(name: str, tmp_path: Path) -> None:
    family = WITH_EXPERTS[name]
    model = family.make()
    in_memory = prune_model(MemoryStream(model), family, family.method)
    family.make().save_pretrained(tmp_path / "dense")
    from_disk = prune_model(DiskStream(tmp_path / "dense", tmp_path / "out"), family, family.method)
    assert hashes(from_disk) == hashes(in_memory)
    again = type(model).from_pretrained(tmp_path / "out")
    for (full, own), (_, loaded) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(own, loaded), full
    for name in ("model.safetensors", "config.json"):  # same layout: keys, shapes, dtypes, places
        assert (tmp_path / "out" / name).stat().st_size == (tmp_path / "dense" / name).stat().st_size
    assert header(tmp_path / "out") == header(tmp_path / "dense")


def header(folder: Path) -> bytes:
    with (folder / "model.safetensors").open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little"))


def prune_model(stream: Stream, family: Family, method: dict[str, Any]) -> Any:
    data = CalibrationData.from_batches(family.batches())
    return prune_stream(stream, data, Method(**method), progress=False, accelerator="cpu")
