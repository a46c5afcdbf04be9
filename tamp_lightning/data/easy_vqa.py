"""easy-VQA (PyPI `easy-vqa==1.0`): 5,000 pictures of one coloured shape, 48,248 questions.

Splits are fixed and by picture: of the 4,000 train pictures 3,500 train the towers, 250 calibrate and 250 select
variants; the 1,000 test pictures report.
"""

from __future__ import annotations

import importlib.util
import json
import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from PIL import Image

from tamp_lightning.errors import InputError

Split = Literal["train", "calibration", "selection", "test"]
Kind = Literal["yes_no", "shape", "colour"]

SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
CANDIDATES: dict[Kind, tuple[str, ...]] = {"yes_no": ("yes", "no"), "shape": SHAPES, "colour": COLOURS}
INSTALL = "pip install easy-vqa==1.0"
_RANGES: dict[Split, range] = {
    "train": range(3500),
    "calibration": range(3500, 3750),
    "selection": range(3750, 4000),
    "test": range(1000),
}
_NEGATION = re.compile(r"\b(not|no)\b")


@dataclass(frozen=True)
class Question:
    """One question about one picture."""

    id: int
    """Position among the questions of its package split (train or test file): a stable dataset id."""
    picture: int
    """Number of the picture within its package split."""
    text: str
    answer: str

    @property
    def kind(self) -> Kind:
        """Which of the three benchmarks the question belongs to."""
        if self.answer in CANDIDATES["yes_no"]:
            return "yes_no"
        return "shape" if self.answer in SHAPES else "colour"

    @property
    def negated(self) -> bool:
        """Whether a yes/no question asks for absence ("is there not a ...")."""
        return _NEGATION.search(self.text) is not None


def root() -> Path:
    """Folder of the installed data.

    Raises:
        FileNotFoundError: the package is not installed; the message holds the command that installs it.
    """
    spec = importlib.util.find_spec("easy_vqa")
    path = Path(spec.origin).parent / "data" if spec and spec.origin else None
    if path is None or not path.is_dir():
        raise FileNotFoundError(f"easy-VQA is not installed: `{INSTALL}`")
    return path


def _folder(split: Split) -> str:
    return "test" if split == "test" else "train"


@cache
def questions(split: Split) -> tuple[Question, ...]:
    """All questions of a split, in file order."""
    rows = json.loads((root() / _folder(split) / "questions.json").read_text())
    wanted = _RANGES[split]
    return tuple(Question(i, p, q, a) for i, (q, a, p) in enumerate(rows) if p in wanted)


def load_picture(split: Split, picture: int) -> Image.Image:
    """The picture as RGB."""
    return Image.open(root() / _folder(split) / "images" / f"{picture}.png").convert("RGB")


def by_picture(items: tuple[Question, ...] | list[Question]) -> dict[int, list[Question]]:
    """Questions grouped by picture, pictures in order of first appearance."""
    groups: dict[int, list[Question]] = {}
    for item in items:
        groups.setdefault(item.picture, []).append(item)
    return groups


def labels(items: list[Question]) -> tuple[str | None, str | None]:
    """Shape and colour of a picture, told from its questions' answers; None where no answer tells it."""
    shape: str | None = None
    colour: str | None = None
    for q in items:
        if q.kind == "shape":
            shape = q.answer
        elif q.kind == "colour":
            colour = q.answer
        elif (q.answer == "yes") != q.negated:
            words = set(re.findall(r"[a-z]+", q.text))
            shape = next((s for s in SHAPES if s in words), shape)
            colour = next((c for c in COLOURS if c in words), colour)
    return shape, colour


def balanced_slice(split: Split, size: int, seed: int = 0, pictures: int | None = None) -> list[Question]:
    """About `size` questions for scoring: half yes/no, a quarter shape, a quarter colour.

    Yes/no questions are balanced over (negated, answer), since the words alone give away 82.5 % of them;
    shape and colour are balanced over their answers. The order is that of the data set.

    Args:
        split: where they are from.
        size: about how many.
        seed: of the draw.
        pictures: all about so many pictures, which then have more questions each; default: whatever is drawn.

    Raises:
        InputError: the split has too few questions of some group.
    """
    rng = random.Random(seed)
    cells: dict[tuple[str, ...], list[Question]] = {}
    asked = by_picture(questions(split))
    drawn = set(asked) if pictures is None else set(random.Random(seed).sample(sorted(asked), pictures))
    for q in (q for q in questions(split) if q.picture in drawn):
        key: tuple[str, ...] = (q.kind, q.answer, str(q.negated if q.kind == "yes_no" else ""))
        cells.setdefault(key, []).append(q)
    shares: dict[str, float] = {
        "yes_no": size / 2 / 4,
        "shape": size / 4 / len(SHAPES),
        "colour": size / 4 / len(COLOURS),
    }
    chosen: list[Question] = []
    for key in sorted(cells):
        count = round(shares[key[0]])
        if count > len(cells[key]):
            raise InputError(f"slice of {size} needs {count} questions of {key}, {split} has {len(cells[key])}")
        chosen += rng.sample(cells[key], count)
    return sorted(chosen, key=lambda q: q.id)


def majority_answers(split: Split = "train") -> dict[str, str]:
    """The answer most often given to each question text: what a model that never looks at the picture would say."""
    counts: dict[str, dict[str, int]] = {}
    for q in questions(split):
        votes = counts.setdefault(q.text, {})
        votes[q.answer] = votes.get(q.answer, 0) + 1
    return {text: max(sorted(votes), key=votes.__getitem__) for text, votes in counts.items()}
