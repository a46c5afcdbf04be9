"""What the second edition of smol-llava-next is trained on: easy-VQA and scenes, in the benchmarks' wordings."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from transformers import LlavaNextProcessor

from tamp_lightning.data.easy_vqa import CANDIDATES, COLOURS, SHAPES, by_picture, labels, load_picture, questions
from tamp_lightning.data.packing import Packed, collate, pack
from tamp_lightning.data.tower_training import augment, draw
from tamp_lightning.testbeds.forms import draw_form, options, worded
from tamp_lightning.testbeds.scene_questions import ASKERS, Asked, ask
from tamp_lightning.testbeds.scenes import DIGITS, SIZES, WORDS, Scene, draw_scene, scene

KINDS = ("yes_no", "shape", "colour", *ASKERS)
EASY_SHARE = 0.35
"""Of the pictures, unless a recipe says another."""
NAMES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "digit": DIGITS,
    "size": SIZES,
    "word": WORDS,
}
"""What the warm-up names in every quarter (a word: in every half)."""
UNKNOWN = -1


class MixedQuestions(Dataset[tuple[Packed, list[int]]]):
    """`length` train pictures with up to `per_picture` questions each; an item also has the number of each question's
    kind in `KINDS`.

    Args:
        processor: the model's processor.
        length: pictures.
        per_picture: most questions about one.
        begin: number of the first; a later stage goes on where the one before ended.
        easy: share of easy-VQA's pictures.
    """

    def __init__(
        self,
        processor: LlavaNextProcessor,
        length: int,
        per_picture: int,
        begin: int = 0,
        easy: float = EASY_SHARE,
    ) -> None:
        self.processor, self.length, self.per_picture, self.begin = processor, length, per_picture, begin
        self.easy = easy
        self.pictures = list(by_picture(questions("train")).items())

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Packed, list[int]]:
        index += self.begin
        rng = random.Random(f"mixed-{index}")
        picture, asked = self._easy(rng) if rng.random() < self.easy else self._scene(index, rng)
        turns = []
        for question in asked:
            form = draw_form(question, rng)
            turns.append(worded(question, form, options(question, rng) if form == "options" else ()))
        return pack(self.processor, picture, turns), [KINDS.index(q.kind) for q in asked]

    def _easy(self, rng: random.Random) -> tuple[Image.Image, list[Asked]]:
        number, items = rng.choice(self.pictures)
        chosen = draw(items, self.per_picture, rng)
        asked = [Asked(q.kind, q.text, q.answer, CANDIDATES[q.kind]) for q in chosen]
        asked += [q for q in asked if q.kind != "yes_no"]  # most have few; the second time the wording may be another
        return augment(load_picture("train", number), rng), asked

    def _scene(self, index: int, rng: random.Random) -> tuple[Image.Image, list[Asked]]:
        shown = scene("train", index)
        found = [q for _ in range(3) for q in ask(shown, rng)]
        return draw_scene(shown), rng.sample(found, min(self.per_picture, len(found)))

    @staticmethod
    def collate(samples: Sequence[tuple[Packed, list[int]]]) -> dict[str, Tensor]:
        """Packed batch plus `items`: the number of each question's kind."""
        batch = collate([packed for packed, _ in samples])
        return {**batch, "items": torch.tensor([k for _, kinds in samples for k in kinds])}


class NamedPictures(Dataset[tuple[Tensor, Tensor]]):
    """`length` train pictures [3,64,64] uint8 with what is in them: [7,5] int64 numbers in `NAMES`.

    Rows: the four quarters, the upper and lower half, the whole picture. Columns: `NAMES`. In quarters and halves of
    scenes the number after the last name stands for "none"; -1 is unknown. `begin` as of `MixedQuestions`.
    """

    def __init__(self, length: int, begin: int = 0) -> None:
        self.length, self.begin = length, begin
        self.pictures = [(p, labels(qs)) for p, qs in by_picture(questions("train")).items()]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        index += self.begin
        rng = random.Random(f"named-{index}")
        if rng.random() < EASY_SHARE:
            number, known = rng.choice(self.pictures)
            picture, target = augment(load_picture("train", number), rng), torch.full((7, len(NAMES)), UNKNOWN)
            for column, (value, names) in enumerate(zip(known, (SHAPES, COLOURS), strict=True)):
                target[6, column] = UNKNOWN if value is None else names.index(value)
        else:
            # from the far end, so that few of the pictures come again with questions
            shown = scene("train", 10**9 + index)
            picture, target = draw_scene(shown), scene_names(shown)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1), target


def scene_names(shown: Scene) -> Tensor:
    """[7,5] int64 of a scene, as `NamedPictures` has it."""
    target = torch.full((7, len(NAMES)), UNKNOWN)
    columns = list(NAMES)
    for column in ("shape", "colour", "digit", "size"):
        target[:4, columns.index(column)] = len(NAMES[column])
    target[4:6, columns.index("word")] = len(WORDS)
    for thing in shown.things:
        for column in ("shape", "colour", "size"):
            target[thing.place, columns.index(column)] = NAMES[column].index(getattr(thing, column))
    writing = shown.writing
    if writing is not None and writing.is_digit:
        target[writing.place, columns.index("digit")] = DIGITS.index(writing.text)
        target[writing.place, columns.index("colour")] = COLOURS.index(writing.colour)
    elif writing is not None:
        target[4 + writing.place // 2, columns.index("word")] = WORDS.index(writing.text)
        target[[writing.place, writing.place + 1], columns.index("colour")] = COLOURS.index(writing.colour)
    return target
