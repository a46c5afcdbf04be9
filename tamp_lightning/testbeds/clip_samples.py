"""Procedural clips as calibration samples, and their mp4 files."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tamp_lightning.data.calibration import Sample
from tamp_lightning.data.chats import questions_on
from tamp_lightning.data.draw import Pool
from tamp_lightning.files import atomic_write
from tamp_lightning.resources import cache_folder
from tamp_lightning.testbeds.clip_files import write_clip
from tamp_lightning.testbeds.clips import DESIGN, Clip, make_clip, questions

CLIPS = 10 * DESIGN
"""Clips in the calibration split."""
VERSION = 1
"""Raised when clips are drawn, played or written otherwise."""


def clip_file(clip: Clip) -> Path:
    """The clip's mp4 file in the cache, written on first use."""
    path = cache_folder() / f"clips-{VERSION}" / clip.split / f"{clip.number:05}.mp4"
    if not path.is_file():
        # the ending tells PyAV what to write
        with atomic_write(path, path.with_name(f".{path.stem}.{os.getpid()}.mp4")) as scratch:
            write_clip(clip, scratch)
    return path


def clip_pool(seed: int, turns: int) -> Pool:
    """Conversations of up to `turns` questions, drawn by `seed`, about each clip of the calibration split."""

    def make(number: int) -> Sample:
        clip = make_clip("calibration", number)
        asked = questions(clip)
        asked = random.Random(f"{seed}/{number}").sample(asked, min(turns, len(asked)))
        messages = questions_on("video", ((q.text, q.answer) for q in asked))
        return Sample(number, messages, [], videos=[str(clip_file(clip))])

    return Pool("the clips' calibration split", CLIPS, make)
