"""Procedural clips as calibration samples, and their mp4 files."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tamp_lightning.data.calibration import Sample, SampleList
from tamp_lightning.data.chats import Messages
from tamp_lightning.data.sources import choose
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


def clip_samples(count: int, seed: int, turns: int) -> SampleList:
    """Conversations of up to `turns` questions about videos with sound of the calibration split.

    Raises:
        InputError: more samples wanted than the split has clips.
    """
    chosen = choose(CLIPS, count, seed, "the clips' calibration split")

    def make(index: int) -> Sample:
        clip = make_clip("calibration", chosen[index])
        asked = questions(clip)
        asked = random.Random(f"{seed}/{clip.number}").sample(asked, min(turns, len(asked)))
        messages: Messages = []
        for k, q in enumerate(asked):
            video = [{"type": "video"}] if k == 0 else []
            messages.append({"role": "user", "content": [*video, {"type": "text", "text": q.text}]})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": q.answer}]})
        return Sample(clip.number, messages, [], videos=[str(clip_file(clip))])

    return SampleList(len(chosen), make)
