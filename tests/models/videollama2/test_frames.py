import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SiglipImageProcessorPil

from tamp_lightning.models.videollama2.frames import fill_frames, frame_range, pixels, sample_frames, to_picture


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (100, [3, 9, 15, 22, 28, 34, 40, 46, 53, 59, 65, 71, 77, 84, 90, 96]),
        (10, [0, 1, 1, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8, 8, 9]),
        (1, [0] * 16),
    ],
)
def test_frames_are_those_of_the_official_code(count, expected):
    assert sample_frames(count, 16) == expected


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, range(100)),
        (1.0, 2.0, range(9, 20)),
        (2.0, 1.0, range(9, 20)),
        (1.0, 1.0, range(9, 20)),
        (-5.0, 50.0, range(100)),
        (9.5, None, range(94, 100)),
    ],
)
def test_range_of_frames(start, end, expected):
    assert frame_range(100, 10.0, start, end) == expected


def test_range_behind_the_end():
    with pytest.raises(ValueError, match=r"20.0 to 30.0 seconds hold no frame: there are 100 at 10 per second"):
        frame_range(100, 10.0, 20.0, 30.0)


def test_too_few_frames_get_black_ones_behind_and_too_many_are_sampled():
    white = Image.new("RGB", (4, 2), "white")
    filled = fill_frames([white], 3)
    assert [f.getpixel((0, 0))[0] for f in filled] == [255, 0, 0]
    assert {f.size for f in filled} == {(4, 2)}
    many = [Image.new("RGB", (1, 1), (k, 0, 0)) for k in range(100)]
    assert [f.getpixel((0, 0))[0] for f in fill_frames(many, 16)] == sample_frames(100, 16)
    with pytest.raises(ValueError, match="without frames"):
        fill_frames([], 3)


def test_pixels_are_those_of_siglips_own_processor():
    noise = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    theirs = SiglipImageProcessorPil(size={"height": 98, "width": 98})(Image.fromarray(noise), return_tensors="pt")
    assert torch.allclose(pixels(to_picture(noise), 98), theirs["pixel_values"][0], atol=2e-7, rtol=0)
    assert torch.equal(pixels(Image.new("RGB", (5, 9)), 8), torch.full((3, 8, 8), -1.0))


@pytest.mark.parametrize("array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_arrays_that_are_no_pictures(array):
    with pytest.raises(ValueError, match=r"uint8 of shape \[h,w,3\]"):
        to_picture(array)
