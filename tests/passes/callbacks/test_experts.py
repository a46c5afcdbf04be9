"""What each expert's statistics are made of, for every rule: against plain loops over the tokens routed to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.options import Correction, Experts, Reconstruct, Refit
from tamp_lightning.methods.selection import Selection
from tamp_lightning.methods.tokens import ModalityMix
from tamp_lightning.ops.diversity import diversity_score, modality_cosine
from tamp_lightning.ops.obs import sparsegpt
from tamp_lightning.passes.pruned import Pruned
from tamp_lightning.passes.trainer import prune_stream
from tamp_lightning.stream import DiskStream, MemoryStream, Stream

from ...conftest import hashes
from ...zoo.experts import WITH_EXPERTS
from ...zoo.families import collate
from ...zoo.test_literal import masks_of
from ..test_literal import keep_rows

FAMILY = WITH_EXPERTS["qwen3_vl_moe"]
LAYER = "model.language_model.layers.0.mlp.experts"
pytestmark = pytest.mark.filterwarnings("ignore:.*matrices of experts")


def samples() -> list[dict[str, torch.Tensor]]:
    return [FAMILY.sample(("image",), length, length) for length in (60, 41, 37)]


def run(stream: Stream, method: Method, batches: list | None = None) -> Pruned:
    data = CalibrationData.from_batches(samples() if batches is None else batches)
    return prune_stream(stream, data, method, progress=False, accelerator="cpu")


@torch.no_grad()
def routed(sample: dict[str, torch.Tensor]) -> tuple[torch.nn.Module, list[tuple], torch.Tensor]:
    """The first block's layer in the dense model, what it is called with, and whether each token is text."""
    model, seen = FAMILY.make(), []
    layer = model.get_submodule(LAYER)
    layer.register_forward_pre_hook(lambda _, args: seen.append(args))
    model(**sample, use_cache=False)
    return layer, seen, sample["mm_token_type_ids"][0]


@torch.no_grad()
def tokens_of(expert: int, text_alone: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Any]:
    """Hidden states, gates and activations of all tokens that are routed to an expert, and the layer."""
    rows = []
    for sample in samples():
        layer, [(hidden, index, weights)], types = routed(sample)
        for t in range(len(hidden)):
            if expert in index[t].tolist() and not (text_alone and types[t]):
                rows.append((hidden[t], weights[t, index[t].tolist().index(expert)]))
    x, gates = torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])
    gate, up = (x @ layer.gate_up_proj[expert].T).chunk(2, -1)
    return x, gates, layer.act_fn(gate) * up, layer


def wanda_mask(weight: torch.Tensor, read: torch.Tensor, factor: torch.Tensor, kept: int) -> np.ndarray:
    squares = (factor[:, None].double() * read.double() ** 2).sum(0).numpy()
    return keep_rows(np.abs(weight.detach().double().numpy()) * np.sqrt(squares), kept)


@pytest.mark.parametrize("tokens", ["all", "text_only"])
@pytest.mark.parametrize("gates", [False, True])
@torch.no_grad()
def test_a_rule_counts_routed_tokens_alone_and_gates_weigh_them(tokens: str, gates: bool) -> None:
    method = Method(tokens=tokens, allocation="uniform", experts=Experts(shrink=0.0, gate_weighted=gates))
    pruned = run(MemoryStream(FAMILY.make()), method)
    masks = masks_of(pruned)
    for expert in range(4):
        x, gate, act, layer = tokens_of(expert, tokens == "text_only")
        factor = gate.square() if gates else torch.ones(len(x))
        half = layer.gate_up_proj.shape[1] // 2
        both = layer.gate_up_proj[expert]
        for name, weight, read in (
            ("gate_proj", both[:half], x), ("up_proj", both[half:], x), ("down_proj", layer.down_proj[expert], act)
        ):  # fmt: skip
            row = pruned.linears[f"{LAYER}.{expert}.{name}"]
            assert row["expert_tokens"] == len(x)
            theirs = wanda_mask(weight, read, factor, row["kept"])
            assert np.array_equal(masks[f"{LAYER}.{expert}.{name}"], theirs)


@torch.no_grad()
def test_second_moments_are_those_of_routed_tokens() -> None:
    model = FAMILY.make()
    pruned = run(MemoryStream(model), Method(tokens="all", allocation="uniform", solver="sparsegpt"))
    layer = model.get_submodule(LAYER)
    for expert in range(4):
        x, _, act, dense = tokens_of(expert)
        for name, read in (("gate_proj", x), ("down_proj", act)):
            row = pruned.linears[f"{LAYER}.{expert}.{name}"]
            assert ("fallback" in row) == (len(x) < read.shape[1])
            stacked = "down_proj" if name == "down_proj" else "gate_up_proj"
            own, was = (m.get_parameter(stacked)[expert][: row["shape"][0]] for m in (layer, dense))
            if "fallback" not in row:
                weight, mask = sparsegpt(was, read.T @ read, kept=row["kept"], by_row=True)
                assert torch.equal(own != 0, mask)
                torch.testing.assert_close(own, weight, rtol=1e-3, atol=1e-4)


def test_experts_with_fewer_tokens_than_columns_are_pruned_by_wanda() -> None:
    few = [FAMILY.sample((), 12, 1)]
    told = {}
    for solver in ("sparsegpt", "wanda"):
        with pytest.warns(UserWarning, match="matrices of experts got fewer than 128") as warned:
            told[solver] = run(
                MemoryStream(FAMILY.make()), Method(tokens="all", allocation="uniform", solver=solver), few
            )
        [message] = [str(one.message) for one in warned if "matrices of experts" in str(one.message)]
        assert ("were pruned by wanda" in message) == (solver == "sparsegpt")
    ours, theirs = masks_of(told["sparsegpt"]), masks_of(told["wanda"])
    gates = [f"{LAYER}.{expert}.gate_proj" for expert in range(4)]  # in the first block nothing before has moved
    for name in gates:
        assert told["sparsegpt"].linears[name]["fallback"] == "wanda"
        assert "fallback" not in told["wanda"].linears[name]
        assert np.array_equal(ours[name], theirs[name])


def test_experts_with_fewer_tokens_than_columns_are_not_refitted() -> None:
    method = Method(tokens="all", allocation="uniform", solver="ria", refit=Refit(5))
    with pytest.warns(UserWarning, match=r"were pruned by ria, without refit"):
        told = run(MemoryStream(FAMILY.make()), method, [FAMILY.sample((), 12, 1)])
    assert told.linears[f"{LAYER}.0.gate_proj"]["fallback"] == "ria"


@torch.no_grad()
def test_diversity_is_the_mean_over_experts_and_shared_by_them() -> None:
    pruned = run(MemoryStream(FAMILY.make()), Method(tokens="all", allocation="das"))
    found: dict[str, list[torch.Tensor]] = {"gate_proj": [], "down_proj": []}
    for sample in samples():
        layer, [(hidden, index, _)], types = routed(sample)
        cosines: dict[str, list[torch.Tensor]] = {"gate_proj": [], "down_proj": []}
        for expert in range(4):
            own = (index == expert).any(1)
            both = hidden[own] @ layer.gate_up_proj[expert].T
            gate, up = both.chunk(2, -1)
            down = (layer.act_fn(gate) * up) @ layer.down_proj[expert].T
            for name, outputs in (("gate_proj", both), ("down_proj", down)):
                cosines[name].append(modality_cosine(outputs, types[own]))
        for name, of_experts in cosines.items():
            found[name].append(torch.stack(of_experts).double().nanmean(0))
    for name, of_samples in found.items():
        score = diversity_score(torch.stack(of_samples).nanmean(0))
        scores = {pruned.scores[f"{LAYER}.{expert}.{name}"] for expert in range(4)}
        assert len(scores) == 1
        assert scores.pop() == pytest.approx(score, abs=1e-5)
    assert pruned.scores[f"{LAYER}.0.up_proj"] == pruned.scores[f"{LAYER}.3.gate_proj"]


@torch.no_grad()
def test_diversity_where_the_model_writes_into_what_a_linear_put_out() -> None:
    """Llama 4 adds what experts put out, in place, to what the shared expert put out."""
    llama4, name = WITH_EXPERTS["llama4_moe"], "model.layers.0.feed_forward.shared_expert.down_proj"
    batches, cosines = [llama4.sample((), length, length) for length in (30, 21)], []
    pruned = run(MemoryStream(llama4.make()), Method(tokens="all", allocation="das"), batches)
    model = llama4.make()
    text = lambda output: torch.zeros(len(output), dtype=torch.int64)  # noqa: E731
    hook = lambda _, __, output: cosines.append(modality_cosine(output, text(output)))  # noqa: E731
    model.get_submodule(name).register_forward_hook(hook)
    for batch in batches:
        model(**batch, use_cache=False)
    assert pruned.scores[name] == pytest.approx(diversity_score(torch.stack(cosines).nanmean(0)), abs=1e-5)


@pytest.mark.parametrize(
    "method", [Method(), Method(tokens="all", allocation="uniform", solver="admm")], ids=["tamp", "admm"]
)
def test_batches_and_the_order_of_samples_change_nothing(method: Method) -> None:
    one = run(MemoryStream(FAMILY.make()), method)
    together = [samples()[0], collate(samples()[1:])]
    two = run(MemoryStream(FAMILY.make()), method, together)
    differ = [n for n, row in one.linears.items() if ".layers.0." in n and row["sha256"] != two.linears[n]["sha256"]]
    assert not differ  # products of other shapes round differently, which later blocks may show


@pytest.mark.parametrize(
    "method",
    [
        Method(),
        Method(tokens="all", allocation="constant", pattern="matrix"),
        Method(tokens="all", allocation="uniform", pattern="2:4"),
        Method(tokens="all", allocation="owl"),
        Method(tokens="modality_mix", allocation="uniform", solver="sparsegpt", modality_mix=ModalityMix(held_out=0.5)),
        Method(tokens="all", allocation="uniform", mode="one_shot"),
    ],
    ids=["tamp", "matrix", "2:4", "owl", "mix", "one_shot"],
)
def test_disk_is_memory_and_budgets_count_experts(method: Method, tmp_path: Any) -> None:
    in_memory = run(MemoryStream(FAMILY.make()), method)
    FAMILY.make().save_pretrained(tmp_path / "dense")
    from_disk = run(DiskStream(tmp_path / "dense", tmp_path / "out"), method)
    assert hashes(from_disk) == hashes(in_memory)
    assert len(in_memory.linears) == FAMILY.linears
    assert in_memory.sparsity == pytest.approx(0.5, abs=1e-3)


@torch.no_grad()
def given(model: torch.nn.Module, layer: str) -> tuple[torch.Tensor, ...]:
    """Hidden states, experts and gates of all tokens that a layer is called with."""
    seen = []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda _, args: seen.append(args))
    for sample in samples():
        model(**sample, use_cache=False)
    handle.remove()
    return tuple(torch.cat(parts) for parts in zip(*seen, strict=True))


@torch.no_grad()
def read_by(layer: torch.nn.Module, expert: int, x: torch.Tensor) -> dict[str, torch.Tensor]:
    gate, up = (x @ layer.gate_up_proj[expert].T).chunk(2, -1)
    return {"gate_proj": x, "down_proj": layer.act_fn(gate) * up}


def matrix(layer: torch.nn.Module, expert: int, name: str) -> np.ndarray:
    both = layer.gate_up_proj[expert]
    return (layer.down_proj[expert] if name == "down_proj" else both[: len(both) // 2]).detach().double().numpy()


@pytest.mark.parametrize("gates", [False, True])
@torch.no_grad()
def test_correction_aims_at_what_an_expert_gives_in_the_dense_model(gates: bool) -> None:
    tau, damp, full = 0.7, 0.01, LAYER.replace(".0.", ".1.")
    weighed = Experts(gate_weighted=gates)
    method = Method(tokens="all", allocation="uniform", correction=Correction(tau, damp), experts=weighed)
    model, dense, before = FAMILY.make(), FAMILY.make(), FAMILY.make()
    pruned = run(MemoryStream(model), method)
    first = full.partition(".1.")[0] + ".0"  # block 0 as it was pruned, block 1 dense
    before.get_submodule(first).load_state_dict(model.get_submodule(first).state_dict())
    (there, _, _), (here, chosen, factors) = given(dense, full), given(before, full)
    layer, tried = dense.get_submodule(full), 0
    for expert in range(4):
        rows, slots = (chosen == expert).nonzero(as_tuple=True)
        weights = factors[rows, slots].double().numpy() ** 2 if gates else np.ones(len(rows))
        aims, reads = (read_by(layer, expert, x[rows]) for x in (there, here))
        for name in ("gate_proj", "down_proj"):
            row = pruned.linears[f"{full}.{expert}.{name}"]
            aim, read, was = aims[name].double().numpy(), reads[name].double().numpy(), matrix(layer, expert, name)
            if "fallback" in row:
                continue
            gram, cross = read.T @ (weights[:, None] * read), aim.T @ (weights[:, None] * read)
            pull = damp * np.diag(gram).mean() * np.eye(len(gram))
            wanted = was + tau * (was @ (cross - gram) @ np.linalg.inv(gram + pull))
            mask = keep_rows(np.abs(wanted) * np.sqrt(np.diag(gram)), row["kept"])
            got = matrix(model.get_submodule(full), expert, name)
            agree = (got != 0) == mask
            assert agree.mean() > 0.99
            np.testing.assert_allclose(got[agree], (wanted * mask)[agree], rtol=2e-2, atol=1e-4)
            assert np.abs(got - was * mask).max() > 1e-3
            tried += 1
    assert tried > 4


def test_what_experts_cannot_have_is_refused_first() -> None:
    method, family = Method(solver="sparsegpt", correction=Correction(0.5)), WITH_EXPERTS["llama4_moe"]
    with pytest.raises(ValueError, match=r"correction\.tau is above 0; its experts read .*exclude: \['experts"):
        run(MemoryStream(family.make()), method, family.batches())
    attention = MemoryStream(family.make(), Selection(exclude=[r"experts\."]))
    assert run(attention, method, family.batches()).sparsity == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("name", ["qwen3_vl_moe", "llama4_moe"])
def test_experts_are_reconstructed_under_their_masks(name: str, tmp_path: Any) -> None:
    family, models = WITH_EXPERTS[name], [WITH_EXPERTS[name].make() for _ in range(2)]
    plain = Method(0.6, tokens="all", allocation="uniform")
    method = replace(plain, reconstruct=Reconstruct(6, 1e-3, norms=True))
    before = run(MemoryStream(models[0]), plain, family.batches())
    stream = MemoryStream(models[1])
    after = run(stream, method, family.batches())
    first = [name for name in before.linears if name.startswith(f"{stream.facts.blocks}.0.")]
    assert first
    assert all(hashes(before)[name] == hashes(after)[name] for name in first)
    moved, masks = set(), masks_of(after)
    for linear in stream.facts.all_linears:
        own, other = (linear.weight(m.get_submodule(f"{stream.facts.blocks}.{linear.block}")) for m in models[::-1])
        assert not own[~torch.from_numpy(masks[linear.full])].any()
        moved |= set() if torch.equal(own, other) else {(linear.block, linear.piece is not None)}
    assert (0, True) in moved
    if name == "qwen3_vl_moe":
        family.make().save_pretrained(tmp_path / "dense")
        run(DiskStream(tmp_path / "dense", tmp_path / "out"), method, family.batches())
        written = type(models[1]).from_pretrained(tmp_path / "out")
        assert all(map(torch.equal, written.state_dict().values(), models[1].state_dict().values()))


def test_a_modality_that_never_reaches_its_experts_is_an_error() -> None:
    ernie = WITH_EXPERTS["ernie"]
    with pytest.raises(ValueError, match=r"vision_moe\.experts\.0\.gate_proj saw no calibration token"):
        run(MemoryStream(ernie.make()), Method(tokens="all", allocation="uniform"), [ernie.sample((), 12, 0)])
