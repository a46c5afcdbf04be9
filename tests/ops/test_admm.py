import numpy as np
import pytest
import torch

from tamp_lightning.ops.admm import admm
from tamp_lightning.ops.correction import layer_error
from tamp_lightning.ops.hessian import weighted_gram
from tamp_lightning.ops.masks import matrix_mask, nm_mask, row_mask
from tamp_lightning.ops.obs import sparsegpt
from tamp_lightning.ops.scores import wanda


def correlated(o=12, c=32, tokens=256, seed=0):
    """Inputs that overlap, with norms that differ by more than ten."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(c, c, generator=generator) / c**0.5 + torch.eye(c)
    scale = torch.rand(c, generator=generator).mul(2.5).exp()
    inputs = torch.randn(tokens, c, generator=generator) @ mix * scale
    return torch.randn(o, c, generator=generator), inputs


def literal_admm(weight, inputs, choose, schedule="cubic", fixed=None, iterations=20, rounds=15, damp=0.1):
    """The released code's loop, in its own layout [c, o], in numpy and float64."""
    gram = inputs.T.astype(float) @ inputs
    norm = np.sqrt(np.diag(gram))
    gram = gram / norm / norm[:, None]
    gram += damp * np.diag(gram).mean() * np.eye(len(gram))
    current = (weight.astype(float) * norm).T
    right, inverse = gram @ current, np.linalg.inv(gram + np.eye(len(gram)))
    dual = np.zeros_like(current)
    for step in range(iterations):
        if fixed is None and step < rounds:
            left = (1 - (step + 1) / rounds) ** 3 if schedule == "cubic" else 0
            mask = choose(torch.from_numpy((current + dual).T).abs(), left).T.numpy()
        elif fixed is not None:
            mask = fixed.T
        split = (current + dual) * mask
        dual = dual + (current - split)
        current = inverse @ (right + (split - dual))
    return (((current + dual) * mask).T / norm), mask.T


def rows_or_matrix(best, kept):
    return lambda scores, left: best(scores, kept + int((scores.numel() - kept) * left))


def two_of_four(scores, left):
    keep = nm_mask(scores, 2, 4)
    half = scores.numel() // 2
    return matrix_mask(scores.masked_fill(keep, np.inf), half + int(half * left))


CASES = {
    "rows": (rows_or_matrix(row_mask, 150), {"kept": 150}),
    "rows at once": (rows_or_matrix(row_mask, 150), {"kept": 150, "schedule": "constant"}),
    "matrix": (rows_or_matrix(matrix_mask, 150), {"kept": 150, "by_row": False}),
    "2:4": (two_of_four, {"pattern": (2, 4), "by_row": False}),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_literal_loop(case):
    choose, options = CASES[case]
    for seed in range(3):
        weight, inputs = correlated(seed=seed)
        got, mask = admm(weight, inputs.T @ inputs, **options)
        schedule = options.get("schedule", "cubic")
        expected, other = literal_admm(weight.numpy(), inputs.numpy(), choose, schedule)
        assert (mask.numpy() == other).mean() > 0.99
        exact = layer_error(torch.from_numpy(expected), weight, inputs.T @ inputs)
        assert layer_error(got, weight, inputs.T @ inputs) == pytest.approx(exact, rel=0.01)


def test_a_fixed_mask_is_respected_and_equals_the_literal_loop():
    weight, inputs = correlated()
    fixed = row_mask(wanda(weight, inputs.square().sum(0)), 192)
    got, mask = admm(weight, inputs.T @ inputs, mask=fixed)
    expected, _ = literal_admm(weight.numpy(), inputs.numpy(), None, fixed=fixed.numpy())
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(mask, fixed)
    assert not got[~fixed].any()
    # towards the best weights there are under this mask
    best = torch.zeros_like(weight)
    for r, row in enumerate(fixed):
        best[r, row] = torch.linalg.lstsq(inputs[:, row], inputs @ weight[r]).solution
    hessian = inputs.T @ inputs
    converged, _ = admm(weight, hessian, mask=fixed, iterations=2000, damp=0.0)
    torch.testing.assert_close(converged, best, rtol=1e-3, atol=1e-3)
    least, plain = layer_error(best, weight, hessian), layer_error(weight * fixed, weight, hessian)
    assert least < layer_error(got, weight, hessian) < 0.3 * least + 0.7 * plain


@pytest.mark.parametrize("sparsity", [0.5, 0.7])
@pytest.mark.parametrize("seed", range(5))
def test_error_falls_from_wanda_to_sparsegpt_to_admm(seed, sparsity):
    weight, inputs = correlated(o=24, c=48, tokens=384, seed=seed)
    hessian = inputs.T @ inputs
    kept = round(weight.numel() * (1 - sparsity))
    masked = {
        "row": row_mask(wanda(weight, hessian.diagonal()), kept),
        "2:4": nm_mask(wanda(weight, hessian.diagonal()), 2, 4),
    }
    for options, fixed in (({"kept": kept}, masked["row"]), ({"pattern": (2, 4)}, masked["2:4"])):
        plain = layer_error(weight * fixed, weight, hessian)
        obs = layer_error(sparsegpt(weight, hessian, **options)[0], weight, hessian)
        moved = layer_error(admm(weight, hessian, **options)[0], weight, hessian)
        assert moved < obs < plain
        # and so it does with Wanda's mask for all three
        obs = layer_error(sparsegpt(weight, hessian, mask=fixed)[0], weight, hessian)
        moved = layer_error(admm(weight, hessian, mask=fixed)[0], weight, hessian)
        assert moved < obs < plain


@pytest.mark.parametrize("schedule", ["cubic", "constant"])
@pytest.mark.parametrize("steps", [(20, 15), (3, 15), (1, 1), (4, 0), (0, 15)])
def test_counts_are_exact(schedule, steps):
    weight, inputs = correlated(o=7)
    options = {"schedule": schedule, "iterations": steps[0], "mask_iterations": steps[1]}
    for kept in (0, 7 * 11, 7 * 11 + 3, 7 * 32):
        got, mask = admm(weight.bfloat16(), inputs.T @ inputs, kept=kept, **options)
        quota, extra = divmod(kept, 7)
        assert mask.sum(1).sort().values.tolist() == [quota] * (7 - extra) + [quota + 1] * extra
        assert got.dtype == torch.bfloat16
        assert not got[~mask].any()
        assert admm(weight, inputs.T @ inputs, kept=kept, by_row=False, **options)[1].sum() == kept
    for n, m in ((2, 4), (1, 2), (5, 8)):
        _, mask = admm(weight, inputs.T @ inputs, pattern=(n, m), **options)
        assert (mask.unflatten(1, (-1, m)).sum(-1) == n).all()


def test_no_iterations_are_wanda():
    weight, inputs = correlated()
    hessian = inputs.T @ inputs
    got, mask = admm(weight, hessian, kept=200, iterations=0)
    assert torch.equal(mask, row_mask(wanda(weight, hessian.diagonal()), 200))
    torch.testing.assert_close(got, weight * mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_lose_nothing_change_no_bit(dtype):
    weight, inputs = correlated()
    inputs[:, 3] = 0
    weight, hessian = weight.to(dtype), inputs.T @ inputs
    everything = torch.ones(12, 32, dtype=torch.bool)
    for options in ({"mask": everything}, {"kept": 12 * 32}, {"pattern": (4, 4)}):
        got, mask = admm(weight, hessian, **options)
        assert torch.equal(got, weight)
        assert mask.all()
    everything[2, 5] = False
    got, _ = admm(weight, hessian, mask=everything)
    same = (got == weight).all(1)
    assert same.tolist() == [r != 2 for r in range(12)]


def test_dead_inputs_go_first_and_do_not_disturb_the_others():
    weight, inputs = correlated()
    weight[:, 3] = 1000
    inputs[:, 3] = 0
    hessian = inputs.T @ inputs
    for options in ({"kept": 192}, {"pattern": (2, 4)}):
        got, mask = admm(weight, hessian, **options)
        assert not mask[:, 3].any()
        assert got.isfinite().all()
    live = [c for c in range(32) if c != 3]
    fixed = torch.rand(12, 32, generator=torch.Generator().manual_seed(0)) < 0.5
    got, _ = admm(weight, hessian, mask=fixed)
    assert torch.equal(got[:, 3], weight[:, 3] * fixed[:, 3])
    alone, _ = admm(weight[:, live], hessian[live][:, live], mask=fixed[:, live])
    torch.testing.assert_close(got[:, live], alone, rtol=1e-4, atol=1e-5)
    assert not admm(weight, torch.zeros(32, 32), kept=0)[0].any()
    assert torch.equal(admm(weight, torch.zeros(32, 32), mask=fixed)[0], weight * fixed)


def test_weights_of_one_and_repetition_give_the_same_bits_and_change_nothing():
    weight, inputs = correlated()
    hessian = inputs.T @ inputs
    before = weight.clone(), hessian.clone()
    first = admm(weight, hessian, kept=192)
    second = admm(weight, weighted_gram(inputs[None], torch.ones(1, 256)), kept=192)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(weight, before[0])
    assert torch.equal(hessian, before[1])
    # powers of two are exact
    assert torch.equal(admm(weight, hessian * 2**12, kept=192)[0], first[0])


def test_few_tokens_are_damped_enough():
    weight, inputs = correlated(tokens=3)
    got, _ = admm(weight, inputs.T @ inputs, kept=192)
    assert got.isfinite().all()


def test_refuses_in_one_line():
    weight, eye = torch.ones(2, 6), torch.eye(6)
    for options in ({}, {"kept": 3, "pattern": (2, 3)}):
        with pytest.raises(ValueError, match=r"admm got .*exactly one of"):
            admm(weight, eye, **options)
    with pytest.raises(ValueError, match="2:4 does not fit a width of 6"):
        admm(weight, eye, pattern=(2, 4))
    with pytest.raises(ValueError, match="1:0 is impossible"):
        admm(weight, eye, pattern=(1, 0))
    with pytest.raises(ValueError, match="kept is 13"):
        admm(weight, eye, kept=13)
    with pytest.raises(ValueError, match="hessian has shape"):
        admm(weight, torch.eye(5), kept=3)
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        admm(weight, eye * float("inf"), kept=3)
    with pytest.raises(ValueError, match="rho is 0"):
        admm(weight, eye, kept=3, rho=0)
    with pytest.raises(ValueError, match="schedule is 'linear'"):
        admm(weight, eye, kept=3, schedule="linear")
    with pytest.raises(ValueError, match="not positive definite"):
        admm(weight, eye - 3 * torch.ones(6, 6) + 3 * torch.eye(6), kept=3)
