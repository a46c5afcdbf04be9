"""Which frames of a video are looked at, and how a picture becomes SigLIP's input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.pictures import to_rgb


def frame_range(count: int, fps: float, start: float | None, end: float | None) -> range:
    """Frames between two times in seconds; all of them where none is given.

    As in the official code a time stands for the frame before it, and swapped times are put in order.

    Raises:
        InputError: the range lies after the end of the video.
    """
    if start is not None and end is not None:
        start, end = sorted((max(start, 0.0), max(end, 0.0)))
        end = start + 1 if start == end else end
    first = 0 if start is None else max(int(start * fps) - 1, 0)
    last = count - 1 if end is None else min(int(end * fps) - 1, count - 1)
    if last < first:
        raise InputError(f"{start} to {end} seconds hold no frame: there are {count} at {fps:g} per second")
    return range(first, last + 1)


def sample_frames(count: int, wanted: int) -> list[int]:
    """Index of the middle frame of each of ``wanted`` equal parts of a video of ``count`` frames.

    Where there are fewer frames than parts, frames come several times. 10 frames in 16 parts: 0 1 1 2 3 3 4 4 5 ...
    """
    part = (count - 1) / wanted
    return [round((part * k + part * (k + 1)) / 2 + 1e-6) for k in range(wanted)]


def fill_frames(frames: Sequence[Image.Image], wanted: int) -> list[Image.Image]:
    """Exactly ``wanted`` of the given frames: a sample of too many, black ones after too few.

    The official code takes up to 32 given frames as they are; here all videos of a batch have one shape.

    Raises:
        InputError: there is no frame.
    """
    if not frames:
        raise InputError("a video without frames was given: give at least one")
    if len(frames) > wanted:
        return [frames[k] for k in sample_frames(len(frames), wanted)]
    black = Image.new("RGB", frames[-1].size)
    return [*frames, *[black] * (wanted - len(frames))]


def to_picture(value: Image.Image | np.ndarray | Tensor) -> Image.Image:
    """An RGB picture of a PIL image or of uint8 [h,w,3].

    Raises:
        InputError: an array of another shape or type.
    """
    if isinstance(value, Image.Image):
        return to_rgb(value)
    array = np.asarray(value)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or not array.size:
        raise InputError(f"a picture must be uint8 of shape [h,w,3], got {array.dtype} of shape {array.shape}")
    return Image.fromarray(array)


def pixels(picture: Image.Image, size: int) -> Tensor:
    """SigLIP's input [3,size,size] float32 in -1..1: resized to a square whatever its shape, as at inference.

    Training padded pictures to a square first; the official inference code, and calibration with it, does not.
    """
    resized = to_rgb(picture).resize((size, size), Image.Resampling.BICUBIC)
    scaled = torch.from_numpy(np.asarray(resized, dtype=np.float32).transpose(2, 0, 1) / 255.0)
    return (scaled - 0.5) / 0.5
