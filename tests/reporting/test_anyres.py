"""Tokens and places in the picture, against cases worked by hand and against what the model and processor really do."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig

from tamp_lightning.reporting.anyres import llava_next_grids


def config(pinpoints, crop=32, patch=8):
    vision = CLIPVisionConfig(image_size=crop, patch_size=patch)
    return LlavaNextConfig(vision_config=vision, text_config=LlamaConfig(), image_grid_pinpoints=pinpoints)


def test_the_beds_square_picture():
    overview, details = llava_next_grids(64, 64, config([[64, 64]]))
    assert (overview.rows, overview.columns, overview.newline) == (4, 4, False)
    assert (details.rows, details.columns, details.newline) == (8, 8, True)
    assert (details.left, details.top, details.right, details.bottom) == (0, 0, 1, 1)
    assert overview.tokens + details.tokens == 88


def test_a_wide_picture_by_hand():
    # 40 x 64 on a 64 x 64 canvas: not scaled, 12 black pixels above and below. Of 8 rows of patches the model keeps
    # int(40 * 8 / 64) = 5, rounded up to 6 because it cuts equally much, one row, from both ends: pixels 8 to 56.
    # The picture stands at 12 to 52, so these rows reach from (8 - 12) / 40 to (56 - 12) / 40 of its height.
    details = llava_next_grids(40, 64, config([[64, 64]]))[1]
    assert (details.rows, details.columns, details.tokens) == (6, 8, 54)
    assert (details.left, details.right) == (0, 1)
    assert (details.top, details.bottom) == (pytest.approx(-0.1), pytest.approx(1.1))


def test_a_tall_picture_takes_the_tall_canvas():
    # 128 x 32 fits 64 x 32 best, scaled by a half to 64 x 16, 8 black columns on both sides. 4 columns of patches,
    # the model keeps int(32 * 8 / 128) = 2 of them: pixels 8 to 24, just the picture.
    details = llava_next_grids(128, 32, config([[32, 64], [64, 32]]))[1]
    assert (details.rows, details.columns, details.tokens) == (8, 2, 24)
    assert (details.left, details.right) == (0, 1)
    assert (details.top, details.bottom) == (0, 1)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 64), (64, 37), (5, 64), (200, 90), (33, 300)])
def test_as_many_tokens_as_the_processor_gives(processor, bed, height, width):
    picture = Image.fromarray(np.zeros((height, width, 3), dtype=np.uint8))
    ids = processor(text="<image>", images=picture, return_tensors="pt")["input_ids"]
    count = int((ids == processor.image_token_id).sum())
    assert sum(grid.tokens for grid in llava_next_grids(height, width, bed.config)) == count


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 64), (64, 37), (200, 90), (33, 300)])
def test_every_token_lies_where_the_model_puts_it(processor, bed, height, width):
    """Pictures whose colours are coordinates; the mean colour of each patch, packed by the model, tells its place."""
    down, right = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    colours = np.stack([down, right, np.ones_like(down)], -1)
    picture = Image.fromarray((255 * colours).round().astype(np.uint8))
    pixels = processor.image_processor(picture, return_tensors="pt")["pixel_values"][0]
    patches = (pixels * 0.5 + 0.5).unfold(2, 8, 8).unfold(3, 8, 8).mean((-1, -2)).flatten(2).transpose(1, 2)
    newline = torch.full((3,), -1.0)
    packed, _ = bed.model.pack_image_features([patches], torch.tensor([[height, width]]), "default", newline)
    position = 0
    for grid in llava_next_grids(height, width, bed.config):
        for row in range(grid.rows):
            for column in range(grid.columns + grid.newline):
                token = packed[0][position]
                position += 1
                if column == grid.columns:
                    assert torch.equal(token, newline)
                elif token[2] > 0.99:  # no border in the patch
                    y = grid.top + (row + 0.5) * (grid.bottom - grid.top) / grid.rows
                    x = grid.left + (column + 0.5) * (grid.right - grid.left) / grid.columns
                    assert token[:2].tolist() == pytest.approx([y, x], abs=0.05)
    assert position == len(packed[0])
