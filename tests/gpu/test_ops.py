"""Every operation on the device agrees with the CPU: masks to the bit, sums to within rounding."""

import importlib
import pkgutil

import pytest
import torch
from torch import Tensor

from tamp_lightning import ops
from tamp_lightning.ops import (
    admm,
    bits,
    correction,
    diversity,
    drift,
    gram,
    hessian,
    layer_scores,
    masks,
    mix,
    obs,
    refit,
    rounding,
    routing,
    scores,
    spectrum,
    stats,
    tokens,
    zeroth_order,
)

B, N, C, OUT = 3, 200, 64, 48
RTOL, ATOL = 1e-5, 1e-5
"""Of float32 sums of up to 600 addends, and of what is computed from them; ATOL is a share of the largest value."""
FLIPPED = 0.005
"""Share of the bits of a mask that is chosen in many steps, each of which may break a tie otherwise."""


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


WEIGHT, INPUTS, OTHER = draw(OUT, C), draw(B, N, C, seed=1) + 0.3, draw(B, N, C, seed=2)
MODALITY = (torch.arange(N) // 50).expand(B, N).contiguous()
VALID = torch.arange(N)[None] < torch.tensor([[N], [170], [60]])
FEW = tokens.Picking(max_tokens=64)
ATTENTION = draw(B, N, seed=3).masked_fill(~VALID, -torch.inf).softmax(1)
TOKEN_WEIGHTS = draw(B, N, seed=4).abs() * VALID
FLAT = INPUTS[VALID].double()
HESSIAN = (FLAT.T @ FLAT).float()
CROSS = (OTHER[VALID].double().T @ FLAT).float()
SQUARES = HESSIAN.diagonal().double()
LONG = draw(40, 2000, seed=5)
KEPT = draw(OUT, C, seed=9) > 0
COARSE = (LONG * 2).round()
"""Full of ties."""
DRIFT = draw(B, N, seed=6).abs() * VALID
QUOTAS = torch.randint(0, C, (OUT,), generator=torch.Generator().manual_seed(7))
HELD = {"kept": OUT * C // 2}

EXPERTS = torch.randint(0, 5, (N, 2), generator=torch.Generator().manual_seed(8))
SAMPLES = torch.arange(N) // 50

EXACT = {
    "rounding.group_scales": lambda at: rounding.group_scales(at(WEIGHT), 8),
    "rounding.snap": lambda at: rounding.snap(at(WEIGHT), at(WEIGHT[:, :1].abs()), 8),
    "rounding.round_weight": lambda at: rounding.round_weight(at(WEIGHT), 4),
    "rounding.from_codes": lambda at: rounding.from_codes(*rounding.round_weight(at(WEIGHT), 4), torch.float32),
    "routing.by_expert": lambda at: routing.by_expert(at(EXPERTS), 5),
    "routing.shrunk": lambda at: routing.shrunk(at(SQUARES), 3.0, at(SQUARES / 7), 128.0),
    "masks.keep_where": lambda at: masks.keep_where(at(INPUTS), at(VALID)[..., None]),
    "masks.keep_where_": lambda at: masks.keep_where_(at(INPUTS).clone(), at(VALID)[..., None]),
    "masks.all_finite": lambda at: [masks.all_finite(at(WEIGHT)), masks.all_finite(at(WEIGHT / 0))],
    "masks.row_mask": lambda at: [masks.row_mask(at(LONG), 33_333), masks.row_mask(at(COARSE), 33_333)],
    "masks.matrix_mask": lambda at: [masks.matrix_mask(at(LONG), 33_333), masks.matrix_mask(at(COARSE), 33_333)],
    "masks.quota_mask": lambda at: masks.quota_mask(at(WEIGHT), at(QUOTAS)),
    "masks.nm_mask": lambda at: [masks.nm_mask(at(LONG), 2, 4), masks.nm_mask(at(COARSE), 2, 4)],
    "bits.pack_bits": lambda at: bits.pack_bits(at(WEIGHT > 0)),
    "bits.unpack_bits": lambda at: bits.unpack_bits(bits.pack_bits(at(WEIGHT > 0)), WEIGHT.shape),
    "bits.mask_sha256": lambda at: bits.mask_sha256(at(WEIGHT > 0)),
    "diversity.pairs_present": lambda at: diversity.pairs_present(at(MODALITY), at(VALID)),
    "drift.select_drifted": lambda at: drift.select_drifted(at(DRIFT), at(MODALITY), at(VALID), 0.4),
    "scores.magnitude": lambda at: scores.magnitude(at(WEIGHT)),
    "zeroth_order.perturbation": lambda at: zeroth_order.perturbation((OUT, C), 5, device=at(WEIGHT).device),
    "zeroth_order.gradient_estimate": lambda at: zeroth_order.gradient_estimate(at(SQUARES), at(SQUARES - 1)),
}
CLOSE = {
    "routing.square_sums": lambda at: routing.square_sums(at(INPUTS[0]), at(TOKEN_WEIGHTS[0]), at(SAMPLES), 4),
    "scores.wanda": lambda at: scores.wanda(at(WEIGHT), at(SQUARES)),
    "scores.ria": lambda at: scores.ria(at(WEIGHT), at(SQUARES)),
    "stats.weighted_square_sum": lambda at: [
        stats.weighted_square_sum(at(INPUTS), at(VALID)),
        stats.weighted_square_sum(at(INPUTS), at(TOKEN_WEIGHTS)),
        stats.weighted_square_sum(at(INPUTS), at(VALID & (MODALITY == 1))),
    ],
    "hessian.weighted_gram": lambda at: [
        hessian.weighted_gram(at(INPUTS), at(VALID)),
        hessian.weighted_gram(at(INPUTS.bfloat16()), at(VALID)),
        hessian.weighted_gram(at(INPUTS), at(TOKEN_WEIGHTS), dtype=torch.float64),
    ],
    "hessian.weighted_cross": lambda at: hessian.weighted_cross(at(OTHER), at(INPUTS), at(VALID)),
    "hessian.blend": lambda at: hessian.blend(at(HESSIAN), at(CROSS), 0.2, (100, 400)),
    "hessian.damped": lambda at: hessian.damped(at(HESSIAN)),
    "gram.cosine_gram": lambda at: [
        gram.cosine_gram(at(INPUTS), at(VALID)),
        gram.cosine_gram(at(INPUTS.bfloat16()), at(VALID)),
        gram.cosine_gram(at(INPUTS)),
    ],
    "gram.products": lambda at: gram.products(at(INPUTS), at(OTHER), tf32=False),
    "diversity.modality_cosine": lambda at: [
        diversity.modality_cosine(at(INPUTS), at(MODALITY), valid=at(VALID)),
        diversity.modality_cosine(at(INPUTS), at(MODALITY), valid=at(VALID), positive_only=True),
    ],
    "diversity.gram_cosine": lambda at: diversity.gram_cosine(
        at(gram.cosine_gram(INPUTS, VALID)), at(MODALITY), at(VALID)
    ),
    "diversity.mean_over_pairs": lambda at: diversity.mean_over_pairs(at(draw(B, 4, 4))),
    "diversity.diversity_score": lambda at: diversity.diversity_score(at(draw(4, 4))),
    "drift.drift": lambda at: drift.drift(at(INPUTS), at(OTHER), at(VALID)),
    "drift.drift_totals": lambda at: list(drift.drift_totals(at(DRIFT), at(MODALITY), at(VALID))),
    "mix.mix_statistics": lambda at: mix.mix_statistics([at(HESSIAN), at(CROSS)], [3, 4], [1, 0.5]),
    "spectrum.hill_alpha": lambda at: [spectrum.hill_alpha(at(WEIGHT)), spectrum.hill_alpha(at(WEIGHT), "peak")],
    "layer_scores.outlier_ratio": lambda at: layer_scores.outlier_ratio([at(LONG.abs()), at(WEIGHT.abs())], 2.0),
    "zeroth_order.perturbed": lambda at: zeroth_order.perturbed(at(WEIGHT), 3, 1e-3),
    "zeroth_order.sensitivity": lambda at: zeroth_order.sensitivity(at(SQUARES)),
    "refit.refit": lambda at: refit.refit(at(WEIGHT), at(WEIGHT * KEPT), at(KEPT), at(HESSIAN)),
    "correction.corrected_target": lambda at: correction.corrected_target(at(WEIGHT), at(CROSS), at(HESSIAN)),
    "correction.layer_error": lambda at: correction.layer_error(at(WEIGHT), at(WEIGHT * 0.9), at(HESSIAN)),
}
CHOSEN = {
    "tokens.select_representative": lambda at: [
        tokens.select_representative([at(INPUTS), at(OTHER)], at(ATTENTION), at(MODALITY), valid=at(VALID)),
        tokens.select_representative(
            at(INPUTS), at(ATTENTION), at(MODALITY), tokens.Picking(max_tokens=64), valid=at(VALID)
        ),
        tokens.select_representative(at(INPUTS.bfloat16()), at(ATTENTION), at(MODALITY), valid=at(VALID)),
    ],
    "obs.sparsegpt": lambda at: [
        obs.sparsegpt(at(WEIGHT), at(HESSIAN), **how)[1]
        for how in (HELD, {**HELD, "by_row": False}, {"pattern": (2, 4)}, {"sparsity": 0.5}, {"mask": at(WEIGHT > 0)})
    ],
    "admm.admm": lambda at: [
        admm.admm(at(WEIGHT), at(HESSIAN), **how)[1]
        for how in (HELD, {**HELD, "by_row": False}, {"pattern": (2, 4)}, {"mask": at(WEIGHT > 0)})
    ],
}
NO_TENSORS = {
    "rounding.largest",
    "allocation.allocate",
    "allocation.to_counts",
    "names.place_of",
    "tilt.tilted_sparsity",
    "layer_scores.owl_sparsity",
    "layer_scores.dlp_sparsity",
    "layer_scores.alpha_sparsity",
    "layer_scores.ramp_sparsity",
    "layer_scores.check_sparsity",
}
"""They compute with a number per block, on the CPU."""
WITHIN_OTHERS = {
    "picking.pick_until": "tokens.select_representative",
    "diversity.check_token_shapes": "diversity.modality_cosine",
    "hessian.check_hessian": "obs.sparsegpt",
    "masks.check_choice": "obs.sparsegpt",
    "bits.bits_sha256": "bits.mask_sha256",
}
"""Called by the case named."""


def here(value: Tensor) -> Tensor:
    return value


def as_list(value: object) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


@pytest.mark.parametrize("name", EXACT)
def test_what_rounds_nothing_is_equal(name, there):
    for found, expected in zip(as_list(EXACT[name](there)), as_list(EXACT[name](here)), strict=True):
        assert torch.equal(found.cpu(), expected) if isinstance(expected, Tensor) else found == expected


@pytest.mark.parametrize("name", CLOSE)
def test_sums_are_equal_to_within_rounding(name, there):
    for found, expected in zip(as_list(CLOSE[name](there)), as_list(CLOSE[name](here)), strict=True):
        found, expected = torch.as_tensor(found).cpu(), torch.as_tensor(expected)
        largest = float(expected.nan_to_num(0).abs().max())
        torch.testing.assert_close(found, expected, rtol=RTOL, atol=ATOL * largest, equal_nan=True)


@pytest.mark.parametrize("name", CHOSEN)
def test_choices_in_many_steps_differ_in_few_ties(name, there):
    for found, expected in zip(CHOSEN[name](there), CHOSEN[name](here), strict=True):
        assert (found.cpu() != expected).float().mean() <= FLIPPED


@pytest.mark.parametrize("solve", [obs.sparsegpt, admm.admm])
def test_moved_weights_are_equal_to_within_rounding(solve, there):
    found, _ = solve(there(WEIGHT), there(HESSIAN), mask=there(WEIGHT > 0))
    expected, _ = solve(WEIGHT, HESSIAN, mask=WEIGHT > 0)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_every_operation_is_tried():
    public = {
        f"{module.name}.{name}"
        for module in pkgutil.iter_modules(ops.__path__)
        for name, value in vars(importlib.import_module(f"{ops.__name__}.{module.name}")).items()
        if callable(value) and getattr(value, "__module__", "") == f"{ops.__name__}.{module.name}"
        if name[0] != "_" and not isinstance(value, type)
    }
    tried = EXACT.keys() | CLOSE.keys() | CHOSEN.keys()
    assert tried.isdisjoint(NO_TENSORS | WITHIN_OTHERS.keys())
    assert public == tried | NO_TENSORS | WITHIN_OTHERS.keys()
    assert set(WITHIN_OTHERS.values()) <= tried
