"""Which part of a picture each of LLaVA-NeXT's visual tokens stands for."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from transformers import LlavaNextConfig

from tamp_lightning.compat.modeling import select_best_resolution


@dataclass(frozen=True)
class Grid:
    """Tokens in rows from the top, each from left to right; edges in units of the picture, (0, 0) its top left.

    Edges below 0 or above 1 lie in the border that was added around the picture.
    """

    name: str
    rows: int
    columns: int
    left: float
    top: float
    right: float
    bottom: float
    newline: bool
    """Whether a token that stands for no place follows every row."""

    @property
    def tokens(self) -> int:
        """How many tokens the grid has."""
        return self.rows * (self.columns + self.newline)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def _extent(picture: int, other: int, target: int, target_other: int, patch: int) -> tuple[int, float, float]:
    """Along one side: patches left of the padded canvas, and its first and last edge in units of the picture.

    Args:
        picture: length of this side; `other` is that of the other one.
        target: length of the canvas on this side; `target_other` on the other one.
        patch: length of a patch; all in pixels.
    """
    full = target // patch
    cells, edge = full, target
    if target * other > target_other * picture:  # the picture fills the other side: this one was padded
        cells -= 2 * ((full - int(round(picture * (target_other // patch / other), 7))) // 2)
        edge = min(math.ceil(picture * (target_other / other)), target)
    first = (full - cells) // 2 * patch - (target - edge) // 2
    return cells, first / edge, (first + cells * patch) / edge


def llava_next_grids(height: int, width: int, config: LlavaNextConfig) -> list[Grid]:
    """Grids of a picture's tokens in their order: the whole picture in one crop, then its crops in high resolution.

    The first crop is the picture squeezed into a square. For the others the picture is scaled to fit the best of the
    resolutions in the configuration, centred on it with a black border, cut into crops, and put together again as
    patches; rows or columns of patches that lie in the border are left out, and every row ends with a newline token.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        config: of the model.

    Source: transformers 5.23, LlavaNextModel.pack_image_features and LlavaNextImageProcessorPil.get_image_patches.
    """
    vision: Any = config.vision_config
    side = vision.image_size // vision.patch_size
    high, wide = select_best_resolution((height, width), list(config.image_grid_pinpoints or []))
    rows, top, bottom = _extent(height, width, high, wide, vision.patch_size)
    columns, left, right = _extent(width, height, wide, high, vision.patch_size)
    return [
        Grid("overview", side, side, 0.0, 0.0, 1.0, 1.0, False),
        Grid("details", rows, columns, left, top, right, bottom, True),
    ]
