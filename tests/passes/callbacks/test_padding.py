"""Padding never enters a statistic, a score or a choice of tokens."""

import pytest
import torch

from tamp_lightning.data.calibration import calibration_batch, right_padded

from ...conftest import TAMP, WANDA, as_batch, calibration, hashes, run, toys
from ...stream.conftest import make_llama, make_llava


@pytest.mark.parametrize("method", [TAMP, WANDA])
@pytest.mark.parametrize(("make", "kinds"), [(make_llava, "tptp"), (make_llama, "tttt")])
def test_what_stands_in_the_padding_changes_nothing(make, kinds, method):
    samples = toys(kinds)
    results = [run(make(), calibration(samples, 4, pad=pad), method) for pad in (0, 7, 83)]
    for other in results[1:]:
        assert hashes(other) == hashes(results[0])
        assert other.scores == results[0].scores
        assert other.token_share == results[0].token_share
        for name, cosine in other.cosines.items():
            assert torch.equal(cosine.nan_to_num(9), results[0].cosines[name].nan_to_num(9))


def test_a_valid_token_does_change_masks():
    """So that the tests above can fail."""
    samples, other = toys("tt"), toys("tt")
    other[0].ids[-1] = 83
    results = [run(make_llama(), calibration(s, 2), WANDA) for s in (samples, other)]
    assert hashes(results[0]) != hashes(results[1])


def test_right_padding_is_told_from_every_other():
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    assert torch.equal(right_padded(mask), mask.bool())
    for row, message in (
        ([0, 1, 1, 1], "pad on the right"),
        ([1, 0, 1, 1], "pad on the right"),
        ([0, 0, 0, 0], "row 1 of attention_mask is all padding: leave the sample out"),
    ):
        with pytest.raises(ValueError, match=message):
            right_padded(torch.tensor([[1, 1, 1, 1], row]))


def test_a_calibration_batch_leaves_the_mask_out_and_keeps_the_ids():
    batch = as_batch(toys("tp"))
    made = calibration_batch({**batch, "names": ["not", "a tensor"]}, [7, 3])
    assert set(made) == {"input_ids", "pixel_values", "image_sizes", "sample_ids", "valid"}
    assert made["sample_ids"].tolist() == [7, 3]
    assert torch.equal(made["valid"], batch["attention_mask"].bool())
    assert bool(calibration_batch({"input_ids": batch["input_ids"]}, [0, 1])["valid"].all())
