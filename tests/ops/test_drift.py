import math

import pytest
import torch

from tamp_lightning.ops.drift import drift, drift_totals, select_drifted


def literal_selection(values, modality, valid, mean, alpha):
    """ATV as its code does it: one sample at a time, Python's round, a stable sort."""
    chosen = []
    for row, kinds, real in zip(values, modality, valid, strict=True):
        text = [i for i, (k, r) in enumerate(zip(kinds, real, strict=True)) if r and k == 0]
        other = [i for i, (k, r) in enumerate(zip(kinds, real, strict=True)) if r and k != 0]
        count = min(len(other), round(min(1.0, alpha * mean) * len(text)))
        picked = {*text, *sorted(other, key=lambda i: -row[i])[:count]}
        chosen.append([i in picked for i in range(len(row))])
    return chosen


def test_drift_by_hand():
    before = torch.tensor([[[1.0, 0], [1, 0], [3, 4], [0, 0]], [[2, 0], [1, 1], [math.nan, 0], [1, 0]]])
    after = torch.tensor([[[5.0, 0], [0, 2], [4, 3], [1, 0]], [[-1, 0], [1, 1], [1, 0], [math.inf, 0]]])
    valid = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    expected = torch.tensor([[0, 1, 1 - 24 / 25, 1], [2, 0, 0, 0]])
    torch.testing.assert_close(drift(before, after, valid), expected)
    assert (drift(before, before.clone(), valid) >= 0).all()


def test_drift_is_float32_and_does_not_see_padding():
    generator = torch.Generator().manual_seed(0)
    before, after = torch.randn(2, 3, 9, 16, generator=generator).bfloat16()
    originals = before.clone(), after.clone()
    valid = torch.arange(9) < torch.tensor([[9], [5], [1]])
    got = drift(before, after, valid)
    assert got.dtype == torch.float32
    exact = 1 - torch.cosine_similarity(before.double(), after.double(), dim=-1)
    torch.testing.assert_close(got.double(), exact * valid, rtol=0, atol=1e-6)
    before[~valid], after[~valid] = math.nan, math.inf
    assert torch.equal(drift(before, after, valid), got)
    for b, n in enumerate((9, 5, 1)):
        alone = drift(before[b : b + 1, :n], after[b : b + 1, :n], valid[b : b + 1, :n])
        torch.testing.assert_close(alone[0], got[b, :n], rtol=0, atol=1e-6)
        assert torch.equal(originals[0][b, :n], before[b, :n])


def test_selection_by_hand():
    # mean .5: half as many others as texts, so 1 of sample 0 (3 texts: 1.5 is rounded to 2, of which 2 exist) ...
    values = torch.tensor([[0.0, 0.9, 0, 0.2, 0], [0.7, 0.1, 0.8, 0.8, 0]])
    modality = torch.tensor([[0, 1, 0, 1, 0], [3, 0, 1, 2, 0]])
    valid = torch.ones(2, 5, dtype=torch.bool)
    got = select_drifted(values, modality, valid, mean_drift=0.5)
    # ... and 1 of sample 1 (2 texts), where image and video tie and the first wins over the audio
    assert got.tolist() == [[True] * 5, [False, True, True, False, True]]
    text = select_drifted(values, modality, valid, mean_drift=0.5, alpha=0)
    assert torch.equal(text, modality == 0)
    # never more than one other per text
    assert select_drifted(values, modality, valid, mean_drift=1.9, alpha=8.0)[1].tolist() == [
        False,
        True,
        True,
        True,
        True,
    ]


def test_selection_equals_the_literal_one():
    generator = torch.Generator().manual_seed(1)
    for case in range(200):
        batch, n = (int(torch.randint(1, high, (), generator=generator)) for high in (5, 30))
        values = torch.randint(0, 6, (batch, n), generator=generator).float() / 4
        modality = torch.randint(0, 4, (batch, n), generator=generator) * (case % 5 != 0)
        valid = torch.rand(batch, n, generator=generator) < (0.7 if case % 3 else 1.0)
        mean, alpha = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        mean, alpha = (0.5, 1.0) if case % 7 == 0 else (mean, 2 * alpha)
        expected = literal_selection(values.tolist(), modality.tolist(), valid.tolist(), mean, alpha)
        got = select_drifted(values, modality, valid, mean, alpha)
        assert got.tolist() == expected
        values[~valid] = math.nan
        assert torch.equal(select_drifted(values, modality, valid, mean, alpha), got)


def test_totals_leave_out_text_and_padding():
    values = torch.tensor([[0.5, 0.25, 1.0], [0.75, math.nan, 2.0]])
    modality = torch.tensor([[0, 1, 3], [2, 1, 0]])
    valid = torch.tensor([[1, 1, 1], [1, 0, 1]]).bool()
    total, count = drift_totals(values, modality, valid)
    assert (total.tolist(), count.tolist()) == ([1.25, 0.75], [2, 1])
    assert total.dtype == torch.float64


def test_refuses():
    ones, ids = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.long)
    for options in ({"mean_drift": math.nan}, {"mean_drift": -0.1}, {"mean_drift": 0.5, "alpha": math.inf}):
        with pytest.raises(ValueError, match=r"has to be a finite number, at least 0"):
            select_drifted(ones, ids, ids.bool(), **options)
    with pytest.raises(ValueError, match="negative, NaN or infinite"):
        select_drifted(ones * math.nan, ids, ids.bool(), 0.5)
    with pytest.raises(ValueError, match="modality has shape"):
        select_drifted(ones, ids[0], ids.bool(), 0.5)
    with pytest.raises(ValueError, match=r"expected the same .B, n, h."):
        drift(torch.ones(1, 2, 3), torch.ones(1, 2, 4), ids.bool())
    with pytest.raises(ValueError, match="valid has shape"):
        drift(torch.ones(1, 2, 3), torch.ones(1, 2, 3), ids.bool())
