"""Tokens, solvers and patterns against slow, literal implementations: float64, plain loops, one sample at a time."""

import copy
import math

import numpy as np
import pytest
import torch

from tamp_lightning.methods.method import Method
from tamp_lightning.methods.solvers import Admm, SparseGpt
from tamp_lightning.methods.tokens import Amia, Atv

from ..conftest import as_batch, calibration, run, toys
from ..stream.conftest import make_llama, make_llava
from .test_literal import LINEARS, keep_rows, model_path, observe, prune_block, unpack

EVERYTHING = Amia(threshold=0.0)  # picking never stops: every token counts


def kept_of(pruned):
    return {name: row["kept"] for name, row in pruned.linears.items()}


@torch.no_grad()
def drifts(model, k, sample):
    """1 - cosine of the hidden state before and after block k, for every token."""
    states = []
    block = model.get_decoder().layers[k]
    handle = block.register_forward_hook(lambda _m, args, out: states.extend([args[0][0], out[0]]))
    model(**as_batch([sample]), use_cache=False)
    handle.remove()
    before, after = (s.double().numpy() for s in states)
    return 1 - (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)


def atv_picks(model, k, samples, alpha):
    found = [drifts(model, k, s) for s in samples]
    images = [(s.ids == 90).numpy() for s in samples]
    pool = np.concatenate([d[i] for d, i in zip(found, images, strict=True)])
    picks = []
    for drift, image in zip(found, images, strict=True):
        count = min(int(image.sum()), round(min(1, alpha * pool.mean()) * int((~image).sum())))
        best = sorted(np.flatnonzero(image), key=lambda t: -drift[t])[:count]
        picks.append(sorted([*np.flatnonzero(~image), *best]))
    return picks


@pytest.mark.parametrize("alpha", [0.0, 1.0, 40.0])
def test_atv_counts_and_masks(alpha):
    samples, model = toys("ptpp"), make_llava()
    with torch.no_grad():  # tiny random blocks hardly turn a token
        for block in model.get_decoder().layers:
            block.mlp.down_proj.weight.mul_(30)
    literal = copy.deepcopy(model)
    pruned = run(model, calibration(samples, 2), Method(tokens="atv", allocation="uniform", atv=Atv(alpha)))
    for k in range(3):
        picks = atv_picks(literal, k, samples, alpha)
        remaining = iter(picks * len(LINEARS))
        masks = prune_block(literal, k, samples, kept_of(pruned), lambda *_, left=remaining: next(left))
        for name, mask in masks.items():
            np.testing.assert_array_equal(unpack(pruned, name), mask, err_msg=name)
            assert pruned.linears[name]["tokens_per_sample"] == sum(map(len, picks)) / len(samples)
    texts = sum(int((s.ids != 90).sum()) for s in samples) / len(samples)
    assert (pruned.linears[name]["tokens_per_sample"] == texts) == (alpha == 0)


def test_text_only_is_wanda_on_the_text_alone():
    samples, model = toys("ptp"), make_llava()
    pruned = run(make_llava(), calibration(samples, 2), Method(tokens="text_only", allocation="uniform"))
    for k in range(3):
        for name, mask in prune_block(model, k, samples, kept_of(pruned), lambda _z, _a, image: ~image).items():
            np.testing.assert_array_equal(unpack(pruned, name), mask, err_msg=name)
            assert pruned.token_share[name] == [1, 0, 0, 0]


@pytest.mark.parametrize("solver", ["wanda", "ria", "sparsegpt", "admm"])
@pytest.mark.parametrize("tokens", ["amia", "text_only", "atv"])
def test_a_rule_that_picks_every_token_is_the_plain_method_to_the_bit(tokens, solver):
    kinds = "ptp" if tokens == "amia" else "ttt"
    models = [make_llava(), make_llava()]
    plain = Method(tokens="all", allocation="uniform", solver=solver)
    same = Method(tokens=tokens, allocation="uniform", solver=solver, amia=EVERYTHING)
    for model, method in zip(models, (plain, same), strict=True):
        run(model, calibration(toys(kinds), 2), method)
    for (name, a), b in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def first_block(samples, model):
    """Input tokens of every linear of block 0, all samples under each other."""
    seen = [observe(model, s)[0] for s in samples]
    return {name: np.concatenate([s[0, name][0] for s in seen]) for name in LINEARS}


def literal_obs(weight, hessian, kept, damp):
    """SparseGPT without blocks or factorisations: the inverse of what is left of the Hessian, column by column."""
    hessian = hessian + damp * np.diag(hessian).mean() * np.eye(len(hessian))
    left = [np.linalg.inv(hessian[c:, c:]) for c in range(len(hessian))]
    weight = weight.copy()
    mask = keep_rows(weight**2 / np.array([inverse[0, 0] for inverse in left]), kept)
    for c, inverse in enumerate(left):
        error = weight[:, c] * ~mask[:, c] / inverse[0, 0]
        weight[:, c:] -= error[:, None] * inverse[0]
        weight[:, c] *= mask[:, c]
    return weight * mask, mask


def literal_admm(weight, hessian, kept, rules):
    norm = np.sqrt(np.diag(hessian))
    gram = hessian / norm / norm[:, None]
    gram = gram + rules.damp * np.diag(gram).mean() * np.eye(len(gram))
    start = weight * norm
    moved, dual, size = start, np.zeros_like(start), start.size
    for step in range(rules.iterations):
        if step < rules.mask_iterations:
            waiting = (1 - (step + 1) / rules.mask_iterations) ** 3
            mask = keep_rows(np.abs(moved + dual), kept + int((size - kept) * waiting))
        split = (moved + dual) * mask
        dual = dual + moved - split
        moved = (start @ gram + rules.rho * (split - dual)) @ np.linalg.inv(gram + rules.rho * np.eye(len(gram)))
    return (moved + dual) * mask / norm, mask


def literal_ria(weight, norm):
    size = np.abs(weight)
    return (size / size.sum(0) + size / size.sum(1, keepdims=True)) * np.sqrt(norm) ** 0.5


SOLVED = {
    "magnitude": lambda w, x, kept: (w * (m := keep_rows(np.abs(w), kept)), m),
    "ria": lambda w, x, kept: (w * (m := keep_rows(literal_ria(w, (x**2).sum(0)), kept)), m),
    "sparsegpt": lambda w, x, kept: literal_obs(w, x.T @ x, kept, SparseGpt().damp),
    "admm": lambda w, x, kept: literal_admm(w, x.T @ x, kept, Admm()),
}


@pytest.mark.parametrize("solver", SOLVED)
def test_the_first_block_is_solved_as_the_literal_algorithm_does(solver):
    samples, model, dense = toys("ptpptpp"), make_llava(), make_llava()
    pruned = run(model, calibration(samples, 3), Method(tokens="all", allocation="uniform", solver=solver))
    for name, inputs in first_block(samples, dense).items():
        full = f"{model_path(dense)}.0.{name}"
        weight = dense.get_submodule(full).weight.detach().double().numpy()
        wanted, mask = SOLVED[solver](weight, inputs, pruned.linears[full]["kept"])
        agree = unpack(pruned, full) == mask
        assert agree.mean() > 0.995, full
        got = model.get_submodule(full).weight.detach().double().numpy()
        rows = agree.all(1)
        np.testing.assert_allclose(got[rows], wanted[rows], rtol=2e-3, atol=2e-4 * np.abs(weight).max())


def test_two_of_four_keeps_the_two_best_of_every_four():
    samples, dense = toys("ptp"), make_llava()
    pruned = run(make_llava(), calibration(samples, 3), Method(tokens="all", allocation="uniform", pattern="2:4"))
    for name, inputs in first_block(samples, dense).items():
        full = f"{model_path(dense)}.0.{name}"
        scores = np.abs(dense.get_submodule(full).weight.detach().double().numpy()) * np.sqrt((inputs**2).sum(0))
        groups = scores.reshape(len(scores), -1, 4)
        mask = groups >= np.sort(groups, axis=2)[:, :, 2:3]
        np.testing.assert_array_equal(unpack(pruned, full), mask.reshape(scores.shape), err_msg=full)


def test_widths_that_a_pattern_does_not_divide_are_refused_before_any_pass():
    def method(pattern, sparsity):
        return Method(sparsity, tokens="all", allocation="uniform", pattern=pattern)

    with pytest.raises(
        ValueError, match=r"pattern '3:5' does not fit .*q_proj: 5 does not divide its width, 32"
    ) as error:
        run(make_llama(), calibration(toys("t"), 1), method("3:5", 0.4))
    assert "\n" not in str(error.value)
    model = make_llama(intermediate_size=47)
    with pytest.raises(ValueError, match=r"'2:4' does not fit .*down_proj: 4 does not divide its width, 47"):
        run(model, calibration(toys("t"), 1), method("2:4", 0.5))
    assert math.isclose(1 / 3, 1 - 2 / 3)
    run(make_llama(intermediate_size=48, hidden_size=24), calibration(toys("t"), 1), method("1:3", 2 / 3))
