"""Test clips and their questions in VideoMME's public layout: four options with letters, three lengths of video."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tamp_lightning.data.readers.item import Source
from tamp_lightning.errors import InputError
from tamp_lightning.files import atomic_write
from tamp_lightning.testbeds.clip_samples import clip_file
from tamp_lightning.testbeds.clips import DESIGN, make_clip, questions
from tamp_lightning.testbeds.forms import LETTERS

NAME = "clips"
DESIGNS = 1
"""Of 48 clips with 264 questions."""


def write(benchmark: str, folder: Path) -> Source:
    """Write the questions below `folder` and the clips into the user's cache, unless they are there.

    Args:
        benchmark: videomme.
        folder: parent of the file.

    Raises:
        InputError: the clips are not written in that benchmark's layout.
    """
    if benchmark != "videomme":
        raise InputError(f"data.{benchmark} is {NAME}, which is written as videomme only")
    clips = [make_clip("test", number) for number in range(DESIGNS * DESIGN)]
    files = {clip.number: clip_file(clip) for clip in clips}
    path = folder / "videomme" / "test-00000-of-00001.parquet"
    if not path.exists():
        rows = [
            {
                "videoID": files[clip.number].stem,
                "duration": clip.length,
                "domain": q.category,
                "sub_category": q.category,
                "task_type": q.kind,
                "question_id": str(q.id),
                "question": q.text,
                "options": [f"{letter}. {option}" for letter, option in zip(LETTERS, q.options, strict=True)],
                "answer": LETTERS[q.options.index(q.answer)],
            }
            for clip in clips
            for q in questions(clip)
        ]
        with atomic_write(path) as scratch:
            pq.write_table(pa.Table.from_pylist(rows), scratch)
    return Source(path=str(path), media=str(next(iter(files.values())).parent))
