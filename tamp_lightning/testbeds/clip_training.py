"""Batches that teach the towers of smol-videollama2: labelled clips first, then packed questions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tamp_lightning.benchmarks import prompts
from tamp_lightning.data.packing import Packed, collate
from tamp_lightning.data.readers.item import Item
from tamp_lightning.testbeds.clip_packing import AudioVisualProcessor, features, in_memory, pack_video
from tamp_lightning.testbeds.clips import CATEGORIES, COLOURS, MOTIONS, SHAPES, SOUNDS, Question, make_clip, questions
from tamp_lightning.testbeds.forms import LETTERS

LABELS = {
    "shape": SHAPES,
    "motion": MOTIONS,
    "colour_first": COLOURS,
    "colour_last": COLOURS,
    "sound_first": SOUNDS,
    "sound_last": SOUNDS,
}
"""What a clip is labelled with, in order, and the words for it."""
KINDS = (*CATEGORIES, "letter")
"""What training tells apart: questions answered in words by category, and those answered by an option's letter."""


class ClipBank:
    """The first `count` clips of the train split, processed when first asked for and then kept (300 KB each)."""

    def __init__(self, processor: AudioVisualProcessor, count: int) -> None:
        self.processor, self.count = processor, count
        self._kept: dict[int, dict[str, Tensor]] = {}

    def features(self, number: int) -> dict[str, Tensor]:
        """Model inputs of one clip, kept in bfloat16 (which filter banks are in anyway), given in float32."""
        if number not in self._kept:
            made = features(self.processor, in_memory(make_clip("train", number)))
            self._kept[number] = {name: value.bfloat16() for name, value in made.items()}
        return {name: value.float() for name, value in self._kept[number].items()}


def labels(number: int) -> Tensor:
    """Position of each label of a train clip among its words, int64 [6]."""
    clip = make_clip("train", number)
    words = (clip.shape, clip.motion, *clip.colours, *clip.sounds)
    return torch.tensor([known.index(word) for known, word in zip(LABELS.values(), words, strict=True)])


class LabelledClips(Dataset):
    """`length` draws from a bank: pixels [frames,3,s,s], filter banks [n,128], labels [6]."""

    def __init__(self, bank: ClipBank, length: int) -> None:
        self.bank, self.length = bank, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        number = random.Random(f"label/{index}").randrange(self.bank.count)
        pixels, banks = self.bank.features(number).values()
        return pixels[0], banks[0], labels(number)


class PackedClips(Dataset):
    """`length` draws from a bank, each with up to `per_clip` of its questions in one packed sequence."""

    def __init__(self, bank: ClipBank, length: int, per_clip: int) -> None:
        self.bank, self.length, self.per_clip = bank, length, per_clip

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Packed:
        rng = random.Random(f"questions/{index}")
        number = rng.randrange(self.bank.count)
        asked = questions(make_clip("train", number))
        asked = rng.sample(asked, min(self.per_clip, len(asked)))
        turns = [(q.text, q.answer) for q in asked]
        return pack_video(self.bank.processor, self.bank.features(number), turns)


class WordedClips(Dataset):
    """As `PackedClips`, in the benchmarks' wordings; an item also has the number of each question's kind in `KINDS`.

    A question may be asked more than once, up to three times, in other wordings or with its options in another order:
    most of the cost is the clip's.
    """

    def __init__(self, bank: ClipBank, length: int, per_clip: int) -> None:
        self.bank, self.length, self.per_clip = bank, length, per_clip

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Packed, list[int]]:
        rng = random.Random(f"mixed/{index}")
        number = rng.randrange(self.bank.count)
        known = questions(make_clip("train", number))
        most = len(known) * len(FORMS)
        asked = [known[k % len(known)] for k in rng.sample(range(most), min(self.per_clip, most))]
        turns, kinds = [], []
        for question in asked:
            form = rng.choices(FORMS, (1, 2, 5))[0]
            turns.append(worded(question, form, tuple(rng.sample(question.options, len(question.options)))))
            kinds.append(KINDS.index("letter" if form == "options" else question.category))
        return pack_video(self.bank.processor, self.bank.features(number), turns), kinds

    @staticmethod
    def collate(samples: Sequence[tuple[Packed, list[int]]]) -> dict[str, Tensor]:
        """Packed batch plus `items`: the number of each question's kind."""
        batch = collate([packed for packed, _ in samples])
        return {**batch, "items": torch.tensor([k for _, kinds in samples for k in kinds])}


Form = Literal["plain", "word", "options"]
FORMS: tuple[Form, ...] = ("plain", "word", "options")


def worded(question: Question, form: Form, options: tuple[str, ...]) -> tuple[str, str]:
    """What the user says and what the model should answer: the bare question, VQAv2's request for a word, or
    VideoMME's four options, of which a letter is the answer.

    Args:
        question: about a clip.
        form: which of the three.
        options: in the order shown; not used by the other two.
    """
    item = Item(id="", question=question.text, target=question.answer, options=options, media=())
    if form == "options":
        return prompts.videomme(item), LETTERS[options.index(question.answer)]
    return (prompts.word if form == "word" else prompts.bare)(item), question.answer
