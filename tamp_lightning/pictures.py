"""One rule for what a picture becomes, whoever reads it: turned as its EXIF says, then 8-bit RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageOps

from tamp_lightning.errors import InputError

SIXTEEN_BITS = 65535
# Pillow holds 16-bit greys of these formats in 32 bits.
_WIDE_FORMATS = ("PNG", "PPM")


def to_rgb(picture: Image.Image) -> Image.Image:
    """The picture as it is meant to be seen, 8-bit RGB.

    It is turned as its EXIF orientation says, as `datasets` and transformers' `load_image` do. 16-bit greys are scaled
    from 0..65535 to 0..255 (Pillow's own `convert` clips them at 255); 16-bit colours Pillow scales itself. An alpha
    channel is dropped, and of an animation the first frame is taken, as transformers does.

    Raises:
        InputError: whole or floating-point numbers without a scale (modes I and F), or another mode that is no picture.
    """
    turned = ImageOps.exif_transpose(picture)
    if turned.mode.startswith("I;16"):
        return _scaled(np.asarray(turned).astype(np.float32))
    if turned.mode == "I" and picture.format in _WIDE_FORMATS:
        return _scaled(np.asarray(turned, dtype=np.float32))
    if turned.mode in ("I", "F"):
        kind = "32-bit whole numbers" if turned.mode == "I" else "floating-point numbers"
        raise InputError(f"mode {turned.mode} ({kind}) says not which value is white: save it with 8 or 16 bits")
    if turned.mode == "P" and "transparency" in turned.info:  # straight to RGB Pillow warns
        turned = turned.convert("RGBA")
    return turned.convert("RGB")


def _scaled(grey: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(grey * (255 / SIXTEEN_BITS)).astype(np.uint8)).convert("RGB")


def upright(frame: Any) -> Image.Image:
    """A video frame of PyAV as a picture, turned as its file says: telephones store the turn beside the picture."""
    picture = frame.to_image()
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture
