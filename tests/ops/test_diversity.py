import math
from itertools import combinations, product

import pytest
import torch

from tamp_lightning.ops.diversity import diversity_score, modality_cosine


def literal(tokens, modality, positive_only):
    """Cosine of every pair of tokens, one at a time, in Python floats."""
    unit = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in tokens.double().tolist()]
    ids = modality.tolist()
    table = torch.full((4, 4), math.nan)
    for a in range(4):
        for b in range(a, 4):
            left = [u for u, i in zip(unit, ids, strict=True) if i == a]
            right = [u for u, i in zip(unit, ids, strict=True) if i == b]
            pairs = combinations(left, 2) if a == b else product(left, right)
            cosines = [sum(x * y for x, y in zip(u, v, strict=True)) for u, v in pairs]
            if a == b and positive_only:
                cosines = [c for c in cosines if c > 0]
            if cosines:
                table[a, b] = table[b, a] = sum(cosines) / len(cosines)
    return table


@pytest.mark.parametrize("positive_only", [False, True])
def test_equals_pairwise_means(positive_only):
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 3, 7, 40):
        tokens = torch.randn(n, 6, generator=generator)
        modality = torch.randint(0, 4, (n,), generator=generator)
        got = modality_cosine(tokens, modality, positive_only=positive_only)
        torch.testing.assert_close(got, literal(tokens, modality, positive_only), equal_nan=True)


def test_by_hand():
    tokens = torch.tensor([[2.0, 0], [0, 3], [-1, 0], [5, 0]])
    modality = torch.tensor([0, 0, 1, 1])
    cosine = modality_cosine(tokens, modality)
    # text: one right angle; image: opposite; across: (-1 + 1 + 0 + 0) / 4
    assert cosine[0, 0] == 0
    assert cosine[1, 1] == -1
    assert cosine[0, 1] == cosine[1, 0] == 0
    assert cosine[2:].isnan().all()
    assert diversity_score(cosine) == pytest.approx((1 + 2 + 1) / 3)
    positive = modality_cosine(tokens, modality, positive_only=True)
    assert positive.diagonal().isnan().all()
    assert diversity_score(positive) == 1


def test_padding_has_no_influence():
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(3, 9, 5, generator=generator)
    modality = torch.randint(0, 3, (3, 9), generator=generator)
    valid = torch.arange(9) >= torch.tensor([[0], [4], [8]])
    tokens[~valid] = math.nan
    modality[~valid] = -1
    for positive_only in (False, True):
        batch = modality_cosine(tokens, modality, valid=valid, positive_only=positive_only)
        for b in range(3):
            alone = modality_cosine(tokens[b, valid[b]], modality[b, valid[b]], positive_only=positive_only)
            torch.testing.assert_close(batch[b], alone, equal_nan=True)


def test_intra_needs_two_tokens():
    cosine = modality_cosine(torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([0, 3]))
    assert cosine.diagonal().isnan().all()
    assert cosine[0, 3] == pytest.approx(11 / (5 * math.sqrt(5)))
    assert math.isnan(diversity_score(torch.full((4, 4), math.nan)))


def test_bfloat16_is_computed_in_float32():
    tokens = torch.randn(50, 16, generator=torch.Generator().manual_seed(2)).bfloat16()
    modality = torch.zeros(50, dtype=torch.long)
    got = modality_cosine(tokens, modality)
    assert got.dtype == torch.float32
    assert torch.equal(got.nan_to_num(), modality_cosine(tokens.float(), modality).nan_to_num())


def test_zero_tokens_have_cosine_zero():
    cosine = modality_cosine(torch.zeros(4, 3), torch.tensor([0, 0, 1, 1]))
    assert cosine[:2, :2].abs().max() == 0


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="modality has shape"):
        modality_cosine(torch.ones(3, 2), torch.zeros(4))
    with pytest.raises(ValueError, match="tokens have shape"):
        modality_cosine(torch.ones(3), torch.zeros(3))
