"""easy-VQA's test pictures in the public layouts of POPE, VQAv2 and MMBench: real questions, no download.

POPE's lines are the balanced yes/no questions, VQAv2's rows the shape and colour questions with ten equal answers,
MMBench's rows the same with four options in all four rotations.
"""

from __future__ import annotations

import base64
import csv
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tamp_lightning.data import easy_vqa
from tamp_lightning.data.easy_vqa import COLOURS, SHAPES, Question
from tamp_lightning.data.readers.item import Source
from tamp_lightning.data.readers.mmbench import ROTATION
from tamp_lightning.errors import InputError
from tamp_lightning.files import atomic_write
from tamp_lightning.testbeds import skill_layouts

NAME = "easy-vqa"
QUESTIONS = 400
ANSWERS = 10
OPTIONS = 4
# three shapes and one that is in no picture
SHAPE_OPTIONS = (*SHAPES, "hexagon")


def write(benchmark: str, folder: Path, questions: int = QUESTIONS) -> Source:
    """Write one benchmark's files below `folder`, unless they are there, and say where they are.

    Args:
        benchmark: pope, vqav2, mmbench, or mme (a pair about each of 100 pictures, whatever `questions` says).
        folder: parent of the files.
        questions: size of easy-VQA's slice: half of it yes/no, half shape and colour.

    Raises:
        InputError: easy-VQA is not written in that benchmark's layout.
        FileNotFoundError: easy-VQA is not installed.
    """
    if benchmark == "mme":
        return skill_layouts.write(benchmark, folder, scenes=False)
    if benchmark not in WRITERS:
        raise InputError(f"data.{benchmark} is {NAME}, which is written as {', '.join(WRITERS)}, mme only")
    pictures = easy_vqa.root() / "test" / "images"
    asked = easy_vqa.balanced_slice("test", questions)
    name, wanted, writer = WRITERS[benchmark]
    path = folder / f"{benchmark}-{questions}" / name
    if not path.exists():
        with atomic_write(path) as scratch:
            writer([q for q in asked if (q.kind == "yes_no") == wanted], pictures, scratch)
    return Source(path=str(path), media=str(pictures))


def _pope(asked: list[Question], pictures: Path, path: Path) -> None:
    rows = [{"question_id": q.id, "image": f"{q.picture}.png", "text": q.text, "label": q.answer} for q in asked]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _vqa(asked: list[Question], pictures: Path, path: Path) -> None:
    rows = [
        {
            "question_id": q.id,
            "image_id": q.picture,
            "image": {"bytes": (pictures / f"{q.picture}.png").read_bytes(), "path": f"{q.picture}.png"},
            "question": q.text,
            "answers": [{"answer": q.answer, "answer_id": k + 1} for k in range(ANSWERS)],
            "answer_type": "other",
            "question_type": q.kind,
        }
        for q in asked
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def _mmbench(asked: list[Question], pictures: Path, path: Path) -> None:
    letters = "ABCD"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["index", "question", "hint", *letters, "answer", "category", "l2-category", "image"])
        for turn in range(OPTIONS):
            for q in asked:
                options = _options(q)
                options = options[turn:] + options[:turn]
                right = letters[options.index(q.answer)]
                # as in the public file, a rotation names the row that holds its picture
                held = base64.b64encode((pictures / f"{q.picture}.png").read_bytes()).decode()
                image = str(q.id) if turn else held
                row = [q.id + turn * ROTATION, q.text, "", *options, right, q.kind, "easy-VQA", image]
                writer.writerow(row)


def _options(question: Question) -> list[str]:
    rng = random.Random(question.id)
    if question.kind == "shape":
        return rng.sample(SHAPE_OPTIONS, OPTIONS)
    others = rng.sample([colour for colour in COLOURS if colour != question.answer], OPTIONS - 1)
    return rng.sample([question.answer, *others], OPTIONS)


WRITERS: dict[str, tuple[str, bool, Callable[[list[Question], Path, Path], None]]] = {
    "pope": ("coco_pope_random.json", True, _pope),
    "vqav2": ("validation-00000-of-00001.parquet", False, _vqa),
    "mmbench": ("MMBench_DEV_EN.tsv", False, _mmbench),
}
