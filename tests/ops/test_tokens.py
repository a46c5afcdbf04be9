import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tamp_lightning.ops.diversity import modality_cosine
from tamp_lightning.ops.picking import PICKS_PER_CHECK
from tamp_lightning.ops.tokens import Picking, select_representative

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "methods.npz")


def golden(case):
    return {k: torch.from_numpy(GOLDENS[f"tok{case}/{k}"]) for k in ("outputs", "visual", "attention", "selected")}


def unit(rows):
    return [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows]


def dot(u, v):
    return sum(x * y for x, y in zip(u, v, strict=True))


def mean_density(cosine, ids, positive_only):
    means = []
    for a in set(ids):
        for b in set(ids):
            pairs = [(i, k) for i in range(len(ids)) for k in range(len(ids)) if ids[i] == a and ids[k] == b]
            values = [cosine[i][k] for i, k in pairs if (i < k if a == b else True)]
            if a == b and positive_only:
                values = [c for c in values if c > 0]
            if a <= b and values:
                means.append(sum(values) / len(values))
    return sum(means) / len(means) if means else None


def literal(
    outputs,
    attention,
    modality,
    *,
    neighbors=3,
    forward=1.0,
    reverse=0.2,
    sigma=1.0,
    coef=0.1,
    positive_only=False,
):
    """AMIA step by step in Python floats, MMD from the whole kernel matrix at every step."""
    u, a, n = unit(outputs.double().tolist()), attention.tolist(), len(outputs)
    cosine = [[dot(x, y) for y in u] for x in u]
    density = mean_density(cosine, modality.tolist(), positive_only)
    if density is None:
        return set(range(n))
    kernel = np.array(
        [[math.exp(-sum((p - q) ** 2 for p, q in zip(x, y, strict=True)) / (2 * sigma**2)) for y in u] for x in u]
    )
    near = [sorted((k for k in range(n) if k != i), key=lambda k: -cosine[i][k])[:neighbors] for i in range(n)]
    g = [a[i] + sum(math.exp(-forward * (1 - cosine[i][k])) * a[k] for k in near[i]) for i in range(n)]
    chosen = []
    while len(chosen) < n:
        top = max(range(n), key=lambda i: g[i])
        for k in near[top]:
            g[k] -= math.exp(-reverse * (1 - cosine[top][k])) * max(g[top], 0)
        chosen.append(top)
        lowest = min(g) - 1
        for i in chosen:
            g[i] = lowest
        mmd = kernel.mean() + kernel[np.ix_(chosen, chosen)].mean() - 2 * kernel[:, chosen].mean()
        if mmd < coef * math.sqrt(max(1 - density, 0)):
            break
    assert len(set(chosen)) == len(chosen)
    return set(chosen)


def sample(generator, n, d, modalities):
    """Correlated tokens: a shared direction, one per modality, noise; attention with a heavy tail."""
    modality = torch.randint(0, modalities, (n,), generator=generator)
    centres = torch.randn(modalities, d, generator=generator)
    outputs = torch.randn(n, d, generator=generator) + centres[modality] + 0.5
    return outputs, torch.rand(n, generator=generator) ** 6, modality


@pytest.mark.parametrize("case", range(4))
def test_goldens(case):
    c = golden(case)
    got = select_representative(c["outputs"], c["attention"], c["visual"].long(), Picking(positive_only=True))
    assert torch.equal(got, c["selected"])
    cosine = modality_cosine(c["outputs"], c["visual"].long(), positive_only=True)
    found = [cosine[1, 1].item(), cosine[0, 0].item(), cosine[0, 1].item()]
    np.testing.assert_allclose(found, GOLDENS[f"tok{case}/density"], rtol=1e-5)


@pytest.mark.parametrize("seed", range(12))
def test_equals_the_literal_algorithm_in_a_padded_batch(seed):
    generator = torch.Generator().manual_seed(seed)
    options = {
        "threshold": (0.1, 0.02, 0.003)[seed % 3],
        "neighbors": 1 + seed % 4,
        "positive_only": seed % 2 == 1,
    }
    sizes = [50, 23, 9, 2]
    samples = [sample(generator, n, 8, 1 + (seed + i) % 4) for i, n in enumerate(sizes)]
    shape = (len(sizes), max(sizes))
    outputs = torch.full((*shape, 8), math.nan)
    attention = torch.full(shape, math.inf)
    modality, valid = torch.full(shape, -1), torch.zeros(shape, dtype=torch.bool)
    for b, (x, a, m) in enumerate(samples):
        where = slice(shape[1] - len(x), None) if seed % 2 else slice(0, len(x))
        outputs[b, where], attention[b, where], modality[b, where], valid[b, where] = x, a, m, True
    got = select_representative(outputs, attention, modality, Picking(**options), valid=valid)
    assert not (got & ~valid).any()
    for b, (x, a, m) in enumerate(samples):
        expected = literal(
            x, a, m,
            coef=options["threshold"], neighbors=options["neighbors"], positive_only=options["positive_only"],
        )  # fmt: skip
        assert set(got[b, valid[b]].nonzero().flatten().tolist()) == expected
        alone = select_representative(x, a, m, Picking(**options))
        assert torch.equal(alone, got[b, valid[b]])


def test_other_constants_equal_the_literal_algorithm():
    x, a, m = sample(torch.Generator().manual_seed(5), 60, 8, 2)
    got = select_representative(x, a, m, Picking(forward_decay=0.3, reverse_decay=2.0, bandwidth=0.7, threshold=0.01))
    expected = literal(x, a, m, forward=0.3, reverse=2.0, sigma=0.7, coef=0.01)
    assert PICKS_PER_CHECK < len(expected) < 60
    assert set(got.nonzero().flatten().tolist()) == expected


def test_threshold_zero_picks_every_token():
    x, a, m = sample(torch.Generator().manual_seed(6), 40, 8, 2)
    assert select_representative(x, a, m, Picking(threshold=0.0)).all()


def test_text_only_uses_the_pairs_present():
    x, a, m = sample(torch.Generator().manual_seed(7), 40, 8, 1)
    got = select_representative(x, a, m)
    assert set(got.nonzero().flatten().tolist()) == literal(x, a, m)
    assert 0 < got.sum() < 40


def test_a_sample_with_one_token_keeps_it_and_an_empty_one_keeps_none():
    assert select_representative(torch.ones(1, 4), torch.ones(1), torch.zeros(1)).tolist() == [True]
    valid = torch.tensor([[False, True, False], [False, False, False]])
    got = select_representative(torch.ones(2, 3, 4), torch.ones(2, 3), torch.zeros(2, 3), valid=valid)
    assert torch.equal(got, valid)
    assert select_representative(torch.ones(0, 4), torch.ones(0), torch.zeros(0)).shape == (0,)


def test_identical_tokens_terminate():
    for n in (2, 3, 30):
        got = select_representative(torch.ones(n, 8), torch.rand(n), torch.arange(n) % 2)
        assert 1 <= got.sum() <= n


def test_nan_terminates():
    got = select_representative(torch.full((40, 4), math.nan), torch.ones(40), torch.arange(40) % 2)
    assert got.any()


def test_a_token_is_not_its_own_neighbour_among_duplicates():
    """Three copies of one token: the first pick lowers both other copies, so the second is another token."""
    x = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1], [0, 1]])
    attention = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.05])
    got = select_representative(x, attention, torch.zeros(5), Picking(neighbors=2, reverse_decay=0.0))
    assert got[:3].sum() == 1
    assert got[3:].sum() == 1


def test_bfloat16_outputs_are_computed_in_float32_and_left_alone():
    x, a, m = sample(torch.Generator().manual_seed(8), 40, 8, 2)
    half = x.bfloat16()
    copy = half.clone()
    assert torch.equal(select_representative(half, a, m), select_representative(half.float(), a, m))
    assert torch.equal(half, copy)
    full = x.clone()
    select_representative(x.requires_grad_(), a, m, valid=torch.arange(40) > 3)
    assert torch.equal(x, full)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="attention has shape"):
        select_representative(torch.ones(3, 2), torch.ones(2), torch.zeros(3))


def test_several_linears_at_once_are_picked_from_as_alone(monkeypatch):
    generator = torch.Generator().manual_seed(9)
    _, a, m = sample(generator, 40, 8, 2)
    attention, modality = torch.stack([a, a.flip(0)]), torch.stack([m, m.flip(0)])
    valid = torch.arange(40) < torch.tensor([[40], [25]])
    linears = [torch.randn(2, 40, d, generator=generator) + 0.5 for d in (4, 16, 8)]
    alone = [select_representative(x, attention, modality, valid=valid) for x in linears]
    assert len({tuple(picked.flatten().tolist()) for picked in alone}) == 3
    for entries in (2**27, 1, 2 * 40 * 40 * 2):
        monkeypatch.setattr("tamp_lightning.ops.tokens.ENTRIES_AT_ONCE", entries)
        assert torch.equal(select_representative(linears, attention, modality, valid=valid), torch.stack(alone))


def test_capped_it_is_the_choice_among_the_most_attended():
    x, a, m = sample(torch.Generator().manual_seed(10), 50, 8, 2)
    among = a.topk(20).indices.sort().values
    got = select_representative(x, a, m, Picking(max_tokens=20))
    expected = torch.zeros(50, dtype=torch.bool)
    expected[among] = select_representative(x[among], a[among], m[among])
    assert torch.equal(got, expected)
    assert torch.equal(select_representative(x, a, m, Picking(max_tokens=50)), select_representative(x, a, m))
    valid = torch.arange(50) < 10
    capped = select_representative(x, a, m, Picking(max_tokens=20), valid=valid)
    assert torch.equal(capped, select_representative(x, a, m, valid=valid))


def test_the_literal_loop_of_the_benchmarks_picks_the_same():
    path = Path(__file__).parents[2] / "perf" / "literal_amia.py"
    spec = importlib.util.spec_from_file_location("literal_amia", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for seed in range(5):
        x, a, m = sample(torch.Generator().manual_seed(seed), 60, 8, 2)
        for coefficient in (0.1, 0.01):
            picks = module.literal_amia(x, a, m == 1, coefficient)
            assert set(picks) == literal(x, a, m, coef=coefficient)
