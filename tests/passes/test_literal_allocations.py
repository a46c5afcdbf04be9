"""Allocations against slow, literal implementations, through the engine."""

import copy

import numpy as np
import pytest
import torch

from tamp_lightning.methods.allocation import Ecoflap
from tamp_lightning.methods.method import Method
from tamp_lightning.ops.zeroth_order import perturbation

from ..conftest import as_batch, calibration, run, toys
from ..stream.conftest import make_llava
from .test_literal import LINEARS, model_path, observe


def block_wanda(samples, model, k):
    """Wanda scores of all weights of a dense block."""
    seen = [observe(model, s)[0] for s in samples]
    parts = []
    for name in LINEARS:
        norm = np.sqrt(sum((s[k, name][0] ** 2).sum(0) for s in seen))
        weight = model.get_submodule(f"{model_path(model)}.{k}.{name}").weight.detach().double().numpy()
        parts.append((np.abs(weight) * norm).ravel())
    return np.concatenate(parts)


def outlying():
    """A model whose later blocks hold more outliers among their weights."""
    model = make_llava()
    with torch.no_grad():
        for k, block in enumerate(model.get_decoder().layers):
            for name in LINEARS:
                block.get_submodule(name).weight[:, : 1 + k] *= 12
    return model


@pytest.mark.parametrize("rule", ["owl", "dlp"])
def test_owl_and_dlp_score_blocks_by_their_wanda_scores(rule):
    samples, dense = toys("ptp"), outlying()
    pruned = run(outlying(), calibration(samples, 2), Method(tokens="all", allocation=rule))
    wanted = [block_wanda(samples, dense, k) for k in range(3)]
    figures = [100 * (w > 5 * w.mean()).mean() if rule == "owl" else w.mean() for w in wanted]
    shares = []
    for k, figure in enumerate(figures):
        rows = [row for name, row in pruned.linears.items() if f"layers.{k}." in name]
        assert {row["score"] for row in rows} == {rows[0]["score"]}
        assert rows[0]["score"] == pytest.approx(figure, rel=1e-4, abs=0.03)
        shares.append(sum(r["kept"] for r in rows) / sum(r["size"] for r in rows))
    width = 0.16 if rule == "owl" else 0.3
    assert max(shares) - min(shares) == pytest.approx(width, abs=1e-3)
    order = np.argsort(figures)
    # more outliers: denser; a larger mean: sparser
    assert list(np.argsort(shares)) == list(order if rule == "owl" else order[::-1])
    assert pruned.seconds.keys() == {"measure", "prune"}


def test_alpha_reads_weights_alone_and_prunes_light_tails_more():
    model = make_llava()
    with torch.no_grad():
        for block in model.get_decoder().layers[1:2]:
            for name in LINEARS:  # a few large directions: a heavy tail
                weight = block.get_submodule(name).weight
                u, s, v = torch.linalg.svd(weight, full_matrices=False)
                weight.copy_(u @ torch.diag(s * torch.linspace(3, -3, len(s)).exp()) @ v)
    dense = copy.deepcopy(model)
    pruned = run(model, calibration(toys("tp"), 2), Method(tokens="all", allocation="alpha"))
    assert pruned.seconds.keys() == {"prune"}
    shares = []
    for k in range(3):
        alphas = []
        for name in LINEARS:
            weight = dense.get_submodule(f"{model_path(dense)}.{k}.{name}").weight.detach().double().numpy()
            values = np.sort(np.linalg.svd(weight, compute_uv=False) ** 2)
            tail = values[len(values) // 2 :]
            alphas.append(1 + len(tail) / np.log(tail / tail[0]).sum())
        rows = [row for name, row in pruned.linears.items() if f"layers.{k}." in name]
        assert rows[0]["score"] == pytest.approx(np.mean(alphas), rel=1e-3)
        shares.append(1 - sum(r["kept"] for r in rows) / sum(r["size"] for r in rows))
    assert shares[1] == min(shares)
    assert (max(shares) / min(shares)) == pytest.approx(1.3 / 0.7, rel=1e-3)


def test_depth_ramp_is_a_straight_line():
    pruned = run(make_llava(), calibration(toys("t"), 1), Method(tokens="all", allocation="depth_ramp"))
    for name, row in pruned.linears.items():
        block = int(name.split("layers.")[1][0])
        assert 1 - row["kept"] / row["size"] == pytest.approx((0.35, 0.5, 0.65)[block], abs=1e-3)


@torch.no_grad()
def text_loss(model, sample):
    logits = model(**as_batch([sample]), use_cache=False).logits[0].double().log_softmax(-1)
    targets = [t for t in range(1, len(sample.ids)) if sample.ids[t] != 90]
    return -float(np.mean([logits[t - 1, sample.ids[t]] for t in targets]))


def test_ecoflap_scores_are_slopes_of_the_whole_models_loss():
    samples, eps = toys("tpp"), 0.01
    method = Method(tokens="all", allocation="ecoflap", ecoflap=Ecoflap(samples=2, eps=eps))
    pruned = run(make_llava(), calibration(samples, 1), method)
    model = make_llava()
    for number, name in enumerate(pruned.linears):
        if number % 5:
            continue
        weight, slopes = model.get_submodule(name).weight.data, []
        for i in range(2):
            noise = perturbation(weight.shape, number * 1_000_003 + i)
            clean, losses = weight.clone(), []
            for sign in (1, -1):
                weight.copy_(clean + sign * eps * noise)
                losses.append(text_loss(model, samples[i]))
            weight.copy_(clean)
            slopes.append(abs(losses[0] - losses[1]) / (2 * eps))
        assert pruned.linears[name]["score"] == pytest.approx(sum(slopes), rel=1e-2, abs=1e-4)
