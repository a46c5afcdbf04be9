from pathlib import Path

import numpy as np
import pytest
import torch

from tamp_lightning.ops.hessian import weighted_gram
from tamp_lightning.ops.masks import row_mask
from tamp_lightning.ops.obs import sparsegpt
from tamp_lightning.ops.rounding import from_codes, round_weight
from tamp_lightning.ops.scores import wanda

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "methods.npz")


def golden(case):
    weight, inputs, pruned = (torch.from_numpy(GOLDENS[f"sgpt{case}/{k}"]) for k in ("W", "X", "pruned"))
    return weight, inputs, pruned


def loss(weight, other, inputs):
    return (inputs @ (weight - other).T).square().sum().item()


def correlated(o=6, c=24, tokens=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(c, c, generator=generator) / c**0.5
    inputs = torch.randn(tokens, c, generator=generator) @ (mix + torch.eye(c))
    return torch.randn(o, c, generator=generator), inputs


@pytest.mark.parametrize(("case", "options"), [(0, {"sparsity": 0.5}), (2, {"pattern": (2, 4)})])
def test_goldens(case, options):
    weight, inputs, pruned = golden(case)
    got, mask = sparsegpt(weight, inputs.T @ inputs, **options)
    # the reference drops one weight more per block than half
    assert mask.sum() == (pruned != 0).sum()
    assert ((got == 0) == (pruned == 0)).float().mean() >= 0.995
    assert loss(weight, got, inputs) == pytest.approx(loss(weight, pruned, inputs), rel=0.01)


def test_a_fixed_mask_is_respected_and_its_loss_is_smaller_than_without_update():
    weight, inputs = correlated()
    fixed = row_mask(wanda(weight, inputs.square().sum(0)), weight.numel() // 2)
    for block in (1, 5, 128):
        got, mask = sparsegpt(weight, inputs.T @ inputs, mask=fixed, block=block)
        assert torch.equal(mask, fixed)
        assert torch.equal(got != 0, fixed)
        assert loss(weight, got, inputs) < loss(weight, weight * fixed, inputs)


def test_one_pruned_weight_is_compensated_as_least_squares_would():
    """The first column of each row goes; the best other weights are a regression on the remaining inputs."""
    weight, inputs = correlated(o=2, c=4)
    fixed = torch.ones(2, 4, dtype=torch.bool)
    fixed[:, 0] = False
    got, _ = sparsegpt(weight, inputs.T @ inputs, mask=fixed, damp=0.0)
    best = torch.linalg.lstsq(inputs[:, 1:], inputs @ weight.T).solution.T
    torch.testing.assert_close(got[:, 1:], best, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"kept": 7 * 40, "by_row": False}, {"pattern": (2, 4)}, {"pattern": (1, 3)}])
def test_columns_near_and_far_are_updated_as_one_by_one(options):
    """More columns than are updated at once, beside a loop in float64 that updates all later ones after each."""
    weight, inputs = correlated(o=7, c=96)
    hessian = inputs.T @ inputs
    got, mask = sparsegpt(weight, hessian, block=96, **options)
    double = hessian.double()
    ridge = double + 0.01 * double.diagonal().mean() * torch.eye(96)
    upper = torch.linalg.cholesky(torch.linalg.inv(ridge)).mH
    work = weight.double()
    for j in range(96):
        error = torch.where(mask[:, j], 0, work[:, j]) / upper[j, j]
        work[:, j:] -= error[:, None] * upper[j, j:]
        if "pattern" in options and j % options["pattern"][1] == 0:
            n, m = options["pattern"]
            before = work[:, j : j + m] + error[:, None] * upper[j, j : j + m]
            best = (before / upper.diagonal()[j : j + m]).square().topk(n, dim=1).indices
            assert torch.equal(torch.zeros(7, m).scatter(1, best, 1.0).bool(), mask[:, j : j + m])
    torch.testing.assert_close(got.double(), work, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("options", [{"kept": 7 * 80, "by_row": False}, {"pattern": (2, 4)}, {"kept": 7 * 200}])
@pytest.mark.parametrize("bits", [8, 4])
def test_rounding_under_the_mask_beside_a_loop_in_float64(bits, options):
    """GPTQ with the mask of the sweep: column by column, scales of the weights as they are when their group begins."""
    weight, inputs = correlated(o=7, c=200)
    hessian = inputs.T @ inputs
    got, mask = sparsegpt(weight, hessian, bits=bits, **options)
    double = hessian.double()
    ridge = double + 0.01 * double.diagonal().mean() * torch.eye(200)
    upper = torch.linalg.cholesky(torch.linalg.inv(ridge)).mH
    work, most = weight.double(), 2 ** (bits - 1) - 1
    near = 0
    for j in range(200):
        if j % 128 == 0:
            seen = work[:, j : j + 128] * (mask[:, j : j + 128] if "kept" in options else 1)
            scale = (seen.abs().amax(1) / most).bfloat16().double()
        rounded = (work[:, j] / scale).round().clamp(-most, most) * scale * mask[:, j]
        near += ((work[:, j] / scale) % 1 - 0.5).abs().lt(1e-3).sum()
        work[:, j + 1 :] -= ((work[:, j] - rounded) / upper[j, j])[:, None] * upper[j, j + 1 :]
        work[:, j] = rounded
    assert ((got.double() - work).abs() > 1e-3 * work.abs()).sum() <= 7 * near  # a tie may fall to either side
    assert torch.equal(got != 0, (got != 0) & mask)


@pytest.mark.parametrize("bits", [8, 4])
def test_what_is_rounded_in_the_sweep_is_exported_exactly_and_loses_less_than_afterwards(bits):
    weight, inputs = correlated(o=32, c=300, tokens=900)
    weight, hessian = weight.bfloat16(), inputs.T @ inputs
    hessian[5] = hessian[:, 5] = 0  # never active
    plain = sparsegpt(weight, hessian, kept=16 * 300)[0]
    codes, scales = round_weight(plain, bits)
    afterwards = from_codes(codes, scales, torch.bfloat16)
    rounded, own = sparsegpt(weight, hessian, kept=16 * 300, bits=bits)
    assert torch.equal(from_codes(*round_weight(rounded, bits), torch.bfloat16), rounded)
    assert int(own.sum()) == 16 * 300
    assert not rounded[~own].any()
    live = inputs.clone()
    live[:, 5] = 0
    assert loss(weight.float(), rounded.float(), live) < loss(weight.float(), afterwards.float(), live)


def test_blocks_of_rounded_weights_are_whole_groups():
    weight, inputs = correlated()
    with pytest.raises(ValueError, match="a block has 100 columns; rounded values need a multiple of 128"):
        sparsegpt(weight, inputs.T @ inputs, kept=10, block=100, bits=8)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.77])
@pytest.mark.parametrize("block", [5, 128])
def test_counts_are_exact_over_uneven_blocks(sparsity, block):
    weight, inputs = correlated(o=7, c=23)
    kept = round(7 * 23 * (1 - sparsity))
    got, mask = sparsegpt(weight.bfloat16(), inputs.T @ inputs, kept=kept, block=block)
    assert mask.sum() == kept
    assert got.dtype == torch.bfloat16
    assert not got[~mask].any()
    if sparsity == 0:
        assert torch.equal(got, weight.bfloat16())


def test_pattern_holds_when_the_block_is_not_a_multiple_of_it():
    weight, inputs = correlated()
    _, mask = sparsegpt(weight, inputs.T @ inputs, pattern=(2, 4), block=6)
    assert (mask.unflatten(1, (-1, 4)).sum(-1) == 2).all()


def test_kept_by_row_is_the_row_convention_over_uneven_blocks():
    weight, inputs = correlated(o=7, c=23)
    hessian = inputs.T @ inputs
    for kept in (0, 7 * 9, 7 * 9 + 4, 7 * 23 - 1, 7 * 23):
        quota, extra = divmod(kept, 7)
        for block in (1, 5, 23):
            _, mask = sparsegpt(weight, hessian, kept=kept, block=block)
            counts = mask.sum(1)
            assert counts.sort().values.tolist() == [quota] * (7 - extra) + [quota + 1] * extra
            start = 0
            while start + block <= 23:
                share = mask[:, start : start + block].sum(1)
                assert (share - counts * block / 23).abs().max() < 1
                start += block
    _, mask = sparsegpt(weight, hessian, kept=80, by_row=False)
    assert mask.sum() == 80
    assert len(mask.sum(1).unique()) > 2


def test_one_block_by_row_picks_the_smallest_losses_of_each_row():
    weight, inputs = correlated()
    hessian = inputs.T @ inputs
    _, mask = sparsegpt(weight, hessian, kept=6 * 10)
    ridge = hessian.double() + 0.01 * hessian.diagonal().mean() * torch.eye(24)
    upper = torch.linalg.cholesky(torch.linalg.inv(ridge)).mH
    assert torch.equal(mask, row_mask((weight.double() / upper.diagonal()).square(), 6 * 10))


@pytest.mark.parametrize(
    "options", [{"sparsity": 0.5}, {"kept": 61}, {"kept": 61, "by_row": False}, {"pattern": (2, 4)}, "mask"]
)
def test_weights_of_one_give_the_bits_of_the_plain_method(options):
    weight, inputs = correlated()
    plain = inputs.T @ inputs
    if options == "mask":
        options = {"mask": row_mask(wanda(weight, plain.diagonal()), 70)}
    sample = inputs.view(4, 50, -1)
    padded = torch.cat([sample, torch.full((4, 9, 24), float("nan"))], 1)
    for ones in (torch.ones(4, 59), torch.ones(4, 59, dtype=torch.bool), torch.ones(4, 59, dtype=torch.float64)):
        ones[:, 50:] = 0
        weighted = weighted_gram(padded, ones)
        for got, expected in zip(
            sparsegpt(weight, weighted, **options), sparsegpt(weight, plain, **options), strict=True
        ):
            assert torch.equal(got, expected)


def test_a_weight_of_two_is_a_token_seen_twice():
    weight, inputs = correlated(tokens=60)
    weights = torch.randint(0, 4, (1, 60), generator=torch.Generator().manual_seed(0))
    again = inputs.repeat_interleave(weights[0], 0)
    got, mask = sparsegpt(weight, weighted_gram(inputs[None], weights.float()), kept=72)
    expected, other = sparsegpt(weight, again.T @ again, kept=72)
    assert torch.equal(mask, other)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keeping_everything_changes_no_bit_even_on_dead_inputs(dtype):
    weight, inputs = correlated()
    inputs[:, 3] = 0
    weight[2, 5], weight[1, 3] = 0.0, -0.0
    weight = weight.to(dtype)
    everything = torch.ones(6, 24, dtype=torch.bool)
    for options in ({"mask": everything}, {"kept": 6 * 24}, {"pattern": (4, 4)}, {"sparsity": 0.0}):
        got, mask = sparsegpt(weight, inputs.T @ inputs, **options)
        assert torch.equal(got, weight)
        assert mask.all()


def test_the_same_input_gives_the_same_bits_and_changes_nothing():
    weight, inputs = correlated()
    hessian = inputs.T @ inputs
    before = weight.clone(), hessian.clone()
    first, second = (sparsegpt(weight, hessian, kept=72, block=7) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(weight, before[0])
    assert torch.equal(hessian, before[1])


def test_few_tokens_are_damped_enough():
    """Three tokens for 24 inputs: the Hessian has rank 3."""
    weight, inputs = correlated(tokens=3)
    for scale in (1e-6, 1.0, 1e6):
        got, mask = sparsegpt(weight, scale * (inputs.T @ inputs), kept=72)
        assert got.isfinite().all()
        assert mask.sum() == 72


@pytest.mark.parametrize("options", [{"sparsity": 0.5}, {"kept": 72}, {"pattern": (2, 4)}])
def test_dead_inputs_lose_their_weights_first_and_do_not_disturb_the_others(options):
    weight, inputs = correlated()
    inputs[:, 3] = 0
    hessian = inputs.T @ inputs
    got, mask = sparsegpt(weight, hessian, **options)
    assert not got[:, 3].any()
    assert not mask[:, 3].any()
    assert got.isfinite().all()
    assert hessian[3, 3] == 0
    # whatever stood there, and however the Hessian is scaled
    weight[:, 3] *= 1000
    assert torch.equal(sparsegpt(weight, hessian, **options)[1], mask)
    torch.testing.assert_close(sparsegpt(weight, hessian / 4096, **options)[0], got)


def test_dead_inputs_that_a_mask_keeps_keep_their_weights():
    weight, inputs = correlated()
    inputs[:, 3] = 0
    fixed = torch.rand(6, 24, generator=torch.Generator().manual_seed(0)) < 0.5
    fixed[:3, 3], fixed[3:, 3] = True, False
    got, _ = sparsegpt(weight, inputs.T @ inputs, mask=fixed)
    assert torch.equal(got[:, 3], weight[:, 3] * fixed[:, 3])
    live = [c for c in range(24) if c != 3]
    alone, _ = sparsegpt(weight[:, live], inputs[:, live].T @ inputs[:, live], mask=fixed[:, live])
    torch.testing.assert_close(got[:, live], alone, rtol=1e-4, atol=1e-5)


def test_refuses_in_one_line():
    weight, eye = torch.ones(2, 6), torch.eye(6)
    for options in ({}, {"sparsity": 0.5, "pattern": (2, 4)}):
        with pytest.raises(ValueError, match="exactly one of"):
            sparsegpt(weight, eye, **options)
    with pytest.raises(ValueError, match="2:4 does not fit a width of 6"):
        sparsegpt(weight, eye, pattern=(2, 4))
    with pytest.raises(ValueError, match=r"sparsity is 1.0"):
        sparsegpt(weight, eye, sparsity=1.0)
    with pytest.raises(ValueError, match="kept is 13"):
        sparsegpt(weight, eye, kept=13)
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        sparsegpt(weight, eye * float("inf"), sparsity=0.5)
    assert sparsegpt(weight, eye, sparsity=0.0)[1].all()
    with pytest.raises(ValueError, match="hessian has shape"):
        sparsegpt(weight, torch.eye(5), sparsity=0.5)
    with pytest.raises(ValueError, match="mask has shape"):
        sparsegpt(weight, eye, mask=torch.ones(6, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="not positive definite"):
        sparsegpt(weight, -eye, sparsity=0.5)
