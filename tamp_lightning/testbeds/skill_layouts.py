"""Test pictures and questions of the second edition in the public layouts of POPE, VQAv2, MME and MMBench.

The wording is left to the benchmarks: files hold bare questions. What each has: POPE yes/no questions of every kind,
VQAv2 all others with ten equal answers, MME one "yes" and one "no" about each picture, MMBench the questions with four
options in all four rotations, its categories being the kinds.
"""

from __future__ import annotations

import base64
import csv
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tamp_lightning.data.readers.item import Source
from tamp_lightning.data.readers.mmbench import ROTATION
from tamp_lightning.errors import InputError
from tamp_lightning.testbeds.forms import LETTERS, options
from tamp_lightning.testbeds.scene_questions import YES_NO, Asked, exist
from tamp_lightning.testbeds.scenes import scene
from tamp_lightning.testbeds.skills import easy_pictures, load, scene_pictures

NAME = "skills"
ANSWERS = 10
PICTURES = (36, 64)
"""Of easy-VQA and scenes."""
EASY_ALONE = 100
CATEGORY = "existence"
"""Of MME's fourteen; its metric takes no other."""


@dataclass(frozen=True)
class Row:
    """One question, its picture's file name and its number in the files."""

    id: int
    file: str
    asked: Asked


def write(benchmark: str, folder: Path, *, scenes: bool = True) -> Source:
    """Write one benchmark's files below `folder`, unless they are there, and say where they are.

    Args:
        benchmark: one of `WRITERS`.
        folder: parent of the files.
        scenes: ask about scenes too, not about easy-VQA's pictures alone.

    Raises:
        InputError: the questions are not written in that benchmark's layout.
        FileNotFoundError: easy-VQA is not installed.
    """
    if benchmark not in WRITERS:
        raise InputError(f"data.{benchmark} is {NAME}, which is written as {', '.join(WRITERS)} only")
    name, writer = WRITERS[benchmark]
    place = folder / benchmark
    easy, more = PICTURES if scenes else (EASY_ALONE, 0)
    if not place.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f".{benchmark}.tmp"
        rows = _rows(scratch / "pictures", easy, more)
        writer(rows, scratch)
        scratch.replace(place)
    return Source(path=str(place / name), media=str(place / "pictures"))


def _rows(pictures: Path, easy: int, scenes: int) -> list[Row]:
    pictures.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name, posed in [*easy_pictures("test", easy), *scene_pictures("test", scenes)]:
        file = f"{name.replace('/', '-')}.png"
        load("test", name).save(pictures / file)
        for asked in dict.fromkeys(q.asked for q in posed):
            rows.append(Row(len(rows) + 1, file, asked))
    return rows


def _pope(rows: list[Row], folder: Path) -> None:
    lines = [
        {"question_id": r.id, "image": r.file, "text": r.asked.text, "label": r.asked.answer}
        for r in rows
        if r.asked.candidates == YES_NO
    ]
    (folder / "coco_pope_random.json").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _vqa(rows: list[Row], folder: Path) -> None:
    table = [
        {
            "question_id": r.id,
            "image_id": r.id,
            "image": {"bytes": (folder / "pictures" / r.file).read_bytes(), "path": r.file},
            "question": r.asked.text,
            "answers": [{"answer": r.asked.answer, "answer_id": k + 1} for k in range(ANSWERS)],
            "answer_type": "other",
            "question_type": r.asked.kind,
        }
        for r in rows
        if r.asked.candidates != YES_NO
    ]
    pq.write_table(pa.Table.from_pylist(table), folder / "validation-00000-of-00001.parquet")


def _mme(rows: list[Row], folder: Path) -> None:
    """Folders of a category with texts beside pictures; a picture without both answers is left out."""
    for file in dict.fromkeys(r.file for r in rows):
        own = [r.asked for r in rows if r.file == file and r.asked.kind == "yes_no"] or _existence(file)
        pair = [next((q for q in own if q.answer == answer), None) for answer in YES_NO]
        if any(q is None for q in pair):
            continue
        place = folder / "MME" / CATEGORY
        place.mkdir(parents=True, exist_ok=True)
        (place / file).write_bytes((folder / "pictures" / file).read_bytes())
        lines = [f"{q.text} Please answer yes or no.\t{q.answer.capitalize()}" for q in pair if q is not None]
        (place / file).with_suffix(".txt").write_text("\n".join(lines) + "\n")


def _existence(file: str) -> list[Asked]:
    """Some questions about what a scene has and has not."""
    shown = scene("test", int(file.removesuffix(".png").split("-")[1]))
    return [q for k in range(2 * len(LETTERS)) for q in exist(shown, random.Random(f"{file}/{k}"))]


def _mmbench(rows: list[Row], folder: Path) -> None:
    asked = [r for r in rows if r.asked.candidates != YES_NO]
    with (folder / "MMBench_DEV_EN.tsv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["index", "question", "hint", *LETTERS, "answer", "category", "l2-category", "image"])
        for turn in range(len(LETTERS)):
            for r in asked:
                chosen = options(r.asked, random.Random(r.id))
                chosen = chosen[turn:] + chosen[:turn]
                held = base64.b64encode((folder / "pictures" / r.file).read_bytes()).decode()
                # as in the public file, a rotation names the row that holds its picture
                image, right = str(r.id) if turn else held, LETTERS[chosen.index(r.asked.answer)]
                source = r.file.split("-")[0]
                writer.writerow([r.id + turn * ROTATION, r.asked.text, "", *chosen, right, r.asked.kind, source, image])


WRITERS: dict[str, tuple[str, Callable[[list[Row], Path], None]]] = {
    "pope": ("coco_pope_random.json", _pope),
    "vqav2": ("validation-00000-of-00001.parquet", _vqa),
    "mme": ("MME", _mme),
    "mmbench": ("MMBench_DEV_EN.tsv", _mmbench),
}
