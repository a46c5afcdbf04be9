import math

import pytest
import torch

from tamp_lightning.ops.masks import check_choice, matrix_mask, nm_mask, quota_mask, row_mask


def order(values):
    """Indices from best to worst, ties by lowest index."""
    return sorted(range(len(values)), key=lambda i: (-values[i], i))


def literal_row_mask(scores, kept):
    rows = scores.tolist()
    quota, extra = divmod(kept, len(rows))
    mask = torch.zeros_like(scores, dtype=torch.bool)
    for r, row in enumerate(rows):
        mask[r, order(row)[:quota]] = True
    if extra:
        following = [order(row)[quota] for row in rows]
        for r in order([row[i] for row, i in zip(rows, following, strict=True)])[:extra]:
            mask[r, following[r]] = True
    return mask


def test_row_mask_by_hand():
    scores = torch.tensor([[5.0, 1, 4, 2], [7, 7, 7, 0], [0, 9, 8, 6]])
    # 1 each, then the two largest second places: 8 of row 2, 7 of row 1
    expected = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0]]).bool()
    assert torch.equal(row_mask(scores, 5), expected)


@pytest.mark.parametrize("levels", [2, 5, 10**6])
def test_row_mask_equals_sorting_with_ties(levels):
    generator = torch.Generator().manual_seed(levels)
    for _ in range(60):
        o, c = torch.randint(1, 9, (2,), generator=generator).tolist()
        scores = torch.randint(0, levels, (o, c), generator=generator).float()
        kept = int(torch.randint(0, o * c + 1, (1,), generator=generator))
        mask = row_mask(scores, kept)
        assert mask.sum() == kept
        assert torch.equal(mask, literal_row_mask(scores, kept))
        assert torch.equal(matrix_mask(scores, kept), literal_row_mask(scores.view(1, -1), kept).view(o, c))
        assert torch.equal(row_mask(scores.T, kept), literal_row_mask(scores.T, kept))


def test_keeping_all_or_none():
    scores = torch.tensor([[1.0, math.inf], [0, 0]])
    for mask in (row_mask, matrix_mask):
        assert mask(scores, 4).all()
        assert not mask(scores, 0).any()
        assert mask(scores, 1).nonzero().tolist() == [[0, 1]]


def test_all_equal_scores_keep_the_first_of_each_row():
    mask = row_mask(torch.zeros(3, 6), 3 * 2 + 1)
    assert mask.sum(1).tolist() == [3, 2, 2]
    assert mask[:, :2].all()


def test_quota_mask_equals_sorting_with_ties():
    scores = torch.tensor([[5.0, 1, 4, 2], [7, 7, 7, 0], [0, 9, 8, 6]])
    expected = torch.tensor([[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]).bool()
    assert torch.equal(quota_mask(scores, torch.tensor([0, 2, 4])), expected)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        o, c = torch.randint(1, 9, (2,), generator=generator).tolist()
        scores = torch.randint(0, 4, (o, c), generator=generator).float()
        quotas = torch.randint(0, c + 1, (o,), generator=generator)
        rows = [literal_row_mask(row[None], int(q)) for row, q in zip(scores, quotas, strict=True)]
        assert torch.equal(quota_mask(scores, quotas), torch.cat(rows))
        kept = int(torch.randint(0, o * c + 1, (1,), generator=generator))
        mask = row_mask(scores, kept)
        assert torch.equal(quota_mask(scores, mask.sum(1)), mask)
    for bad in (torch.tensor([1]), torch.tensor([-1, 0]), torch.tensor([0, 4])):
        with pytest.raises(ValueError, match="2 numbers from 0 to 3, one per row"):
            quota_mask(torch.zeros(2, 3), bad)


def test_exactly_one_choice_that_fits_is_let_through():
    shape, nothing = torch.Size([2, 4]), {"kept": None, "pattern": None, "mask": None}
    for good in ({"kept": 8}, {"pattern": (2, 4)}, {"mask": torch.ones(2, 4, dtype=torch.bool)}):
        check_choice("solver", shape, **{**nothing, **good})
    with pytest.raises(ValueError, match=r"solver got nothing; give exactly one of sparsity, kept, pattern, mask"):
        check_choice("solver", shape, **nothing, sparsity=None)
    with pytest.raises(ValueError, match=r"got \['sparsity', 'kept'\]; give exactly one"):
        check_choice("solver", shape, **{**nothing, "kept": 3}, sparsity=0.5)
    with pytest.raises(ValueError, match=r"torch.float32; expected \[2, 4\] and torch.bool"):
        check_choice("solver", shape, **{**nothing, "mask": torch.ones(2, 4)})


def test_nm_mask_by_hand_and_ties():
    scores = torch.tensor([[1.0, 3, 3, 3, 0, 0, 0, 0], [4, 1, 2, 3, 9, 8, 7, 6]])
    expected = torch.tensor([[0, 1, 1, 0, 1, 1, 0, 0], [1, 0, 0, 1, 1, 1, 0, 0]]).bool()
    assert torch.equal(nm_mask(scores, 2, 4), expected)
    assert not nm_mask(scores, 0, 4).any()
    assert nm_mask(scores, 4, 4).all()


def test_nm_mask_equals_sorting_every_group():
    generator = torch.Generator().manual_seed(0)
    for n, m in ((1, 2), (2, 4), (4, 8), (5, 8)):
        scores = torch.randint(0, 4, (5, 3 * m), generator=generator).float()
        groups = literal_row_mask(scores.reshape(-1, m), 15 * n)
        assert torch.equal(nm_mask(scores, n, m), groups.view(5, -1))
        assert torch.equal(nm_mask(scores.T.contiguous().T, n, m), groups.view(5, -1))


@pytest.mark.parametrize("kept", [-1, 7])
def test_refuses_impossible_counts(kept):
    for mask in (row_mask, matrix_mask):
        with pytest.raises(ValueError, match=f"kept is {kept}"):
            mask(torch.zeros(2, 3), kept)


def test_refuses_nan_and_wrong_shapes():
    bad = torch.tensor([[0.0, math.nan], [1, 2]])
    for call in (lambda s: row_mask(s, 2), lambda s: matrix_mask(s, 2), lambda s: nm_mask(s, 1, 2)):
        with pytest.raises(ValueError, match="scores hold NaN"):
            call(bad)
        with pytest.raises(ValueError, match="scores have shape"):
            call(torch.zeros(4))
    with pytest.raises(ValueError, match="does not fit a width of 6"):
        nm_mask(torch.zeros(2, 6), 2, 4)
    with pytest.raises(ValueError, match="5:4 is impossible"):
        nm_mask(torch.zeros(2, 8), 5, 4)


@pytest.mark.parametrize("kind", ["random", "ties", "equal", "infinite", "sorted"])
def test_a_long_row_is_ranked_like_a_sorted_one(kind):
    scores = torch.rand(2**16 + 5, generator=torch.Generator().manual_seed(0))
    if kind == "ties":
        scores = (8 * scores).round()
    if kind == "equal":
        scores = torch.ones_like(scores)
    if kind == "infinite":
        scores[: len(scores) // 2] = math.inf
    if kind == "sorted":
        scores = scores.sort().values
    order = scores.argsort(descending=True, stable=True)
    for kept in (0, 1, 2, 20_000, 39_321, len(scores) - 1, len(scores)):
        expected = torch.zeros_like(scores, dtype=torch.bool).index_fill_(0, order[:kept], True)
        assert torch.equal(row_mask(scores[None], kept)[0], expected)
