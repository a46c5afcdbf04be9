"""Rows of plan.json."""

import pytest
import torch

from tamp_lightning.ops.bits import mask_sha256
from tamp_lightning.runs.plan import Plan, linear_row, mask_row, measured, sparsity_of

MASK = torch.tensor([[True, False, False], [True, True, False]])


def test_a_row_says_what_the_mask_says():
    plan = Plan.of_masks({"q": MASK})
    row = plan.linears["q"]
    assert row == {"kept": 3, "size": 6, "shape": [2, 3], "sha256": mask_sha256(MASK), "sparsity": 0.5}
    assert (plan.size, plan.zeroed, plan.sparsity, plan.towers_sparsity) == (6, 3, 0.5, None)


def test_towers_are_counted_apart():
    plan = Plan({"q": {"kept": 1, "size": 4}}, {"fc": {"kept": 9, "size": 10}})
    assert (plan.sparsity, plan.towers_sparsity) == (0.75, pytest.approx(0.1))
    assert set(plan.rows) == {"q", "fc"}
    assert Plan.parse(plan.content) == plan
    assert "towers" not in Plan(plan.linears).content
    assert sparsity_of({}) == 0.0


def test_cosines_are_written_by_pair_and_read_back():
    cosine = torch.full((4, 4), torch.nan, dtype=torch.float64)
    cosine[0, 0], cosine[1, 1] = 0.5, 0.25
    cosine[0, 1] = cosine[1, 0] = -0.125
    row = linear_row(mask_row(MASK), [0.75, 0.25, 0.0, 0.0], 0.3, cosine)
    assert row["cosine"] == {"text-text": 0.5, "text-image": -0.125, "image-image": 0.25}
    assert row["token_share"] == {"text": 0.75, "image": 0.25, "video": 0.0, "audio": 0.0}
    score, found = measured(row)
    assert score == 0.3
    torch.testing.assert_close(found, cosine, equal_nan=True, rtol=0, atol=0)
    assert measured({"score": 2.0}) == (2.0, None)


def test_files_of_a_newer_version_are_refused():
    with pytest.raises(ValueError, match=r"plan\.json has schema 99, this version reads up to 1: update"):
        Plan.parse({"schema": 99, "linears": {}})
    assert Plan.parse({"linears": {}}) == Plan({})  # 0.1.0 wrote none
