"""The packed suite of the second edition: nine kinds of questions about easy-VQA's pictures and scenes.

Answer rule: every question has a closed set of answers (a letter, where it is asked with options) that differ in
their first token; the likeliest first token wins, as greedy decoding restricted to the set would choose.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaNextProcessor

from tamp_lightning.data import easy_vqa
from tamp_lightning.data.easy_vqa import CANDIDATES, Question, by_picture
from tamp_lightning.data.packing import Packed, pack
from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.packed import PackedTask, packed_batch, update_by_kind
from tamp_lightning.evaluation.records import Record
from tamp_lightning.metrics import SCORERS, AnswerScore, SampleTable
from tamp_lightning.testbeds.forms import LETTERS, Form, draw_form, options, worded
from tamp_lightning.testbeds.mixture import KINDS
from tamp_lightning.testbeds.scene_questions import Asked, ask
from tamp_lightning.testbeds.scenes import SIDE, draw_scene, scene

Split = Literal["calibration", "selection", "test"]
Shown = Literal["own", "shuffled", "blank", "unseen", "letters"]
EASY_KINDS = ("yes_no", "shape", "colour")
SLICES = {"demo": (30, 44), "quick": (30, 44), "standard": (110, 165), "full": (240, 420)}
"""Pictures of easy-VQA and scenes; about 400, 1,500 and 4,000 questions."""


@dataclass(frozen=True)
class Posed:
    """One question of the slice in its wording."""

    asked: Asked
    form: Form
    prompt: str
    answer: str
    """What the model should say: a letter where there are options."""
    allowed: tuple[str, ...]


class SkillSuite(PackedTask):
    """The questions of one slice, grouped by picture; an item is one picture with its packed questions.

    Args:
        processor: the model's processor.
        split: "selection" to choose between variants, "test" to report.
        size: "quick" (about 400 questions), "standard" (1,500) or "full" (4,000).
        shown: "own", or a control: another picture of the same source ("shuffled"), plain grey ("blank"), or the own
            picture with a wording that training never had ("unseen"; no options).

    Raises:
        FileNotFoundError: easy-VQA is not installed.
    """

    name, answers = "skills", "teacher_forced"
    to_the_bit = True
    kinds: tuple[str, ...] = KINDS

    def __init__(
        self, processor: LlavaNextProcessor, split: Split = "test", size: str = "quick", shown: Shown = "own"
    ) -> None:
        self.processor, self.split, self.shown = processor, split, shown
        easy, scenes = self.pictures(size)
        self.groups = [*easy_pictures(split, easy), *scene_pictures(split, scenes)]
        self.groups = [(name, self.reposed(posed)) for name, posed in self.groups]
        self.items = [q for _, posed in self.groups for q in posed]
        self.starts = [0]
        for _, posed in self.groups:
            self.starts.append(self.starts[-1] + len(posed))
        self._first = {words: _first_tokens(processor, words) for words in {q.allowed for q in self.items}}

    @staticmethod
    def pictures(size: str) -> tuple[int, int]:
        """Pictures of easy-VQA and scenes in a slice."""
        return SLICES[size]

    def reposed(self, posed: list[Posed]) -> list[Posed]:
        """A picture's questions in the wordings that are shown."""
        return [repose(q, "unseen") for q in posed] if self.shown == "unseen" else posed

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> tuple[Packed, list[int]]:
        name, posed = self.groups[index]
        turns = [(q.prompt, q.answer) for q in posed]
        return pack(self.processor, self._picture(name), turns), self.positions(index)

    def positions(self, index: int) -> list[int]:
        """Questions about one picture."""
        return list(range(self.starts[index], self.starts[index + 1]))

    def _picture(self, name: str) -> Image.Image:
        if self.shown == "blank":
            return Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
        if self.shown == "shuffled":
            alike = [n for n, _ in self.groups if n.split("/")[0] == name.split("/")[0]]
            name = alike[(alike.index(name) + len(alike) // 2) % len(alike)]
        return load(self.split, name)

    def collate(self, samples: Sequence[tuple[Packed, list[int]]]) -> dict[str, Tensor]:
        """Packed batch; a turn is a question with its right answer."""
        return packed_batch(samples)

    def metrics(self) -> dict[str, SampleTable]:
        """One fresh metric per kind, its rows being positions in the slice; groups: the wording."""
        groups = {"form": [q.form for q in self.items]}
        return {kind: AnswerScore(len(self.items), SCORERS["exact"], groups) for kind in self.kinds}

    def judge(
        self, batch: Mapping[str, Tensor], log_probs: Tensor, labels: Tensor, first: Tensor
    ) -> tuple[list[Record], list[int]]:
        """Answers to the batch's `items`, certainty being the right one's probability among those allowed; every turn
        is a right answer."""
        records = []
        for position, row in zip(batch["items"].tolist(), log_probs[first], strict=True):
            question = self.items[position]
            share = row[self._first[question.allowed].to(row.device)].float().softmax(0)
            said, sure = question.allowed[int(share.argmax())], float(share[question.allowed.index(question.answer)])
            records.append(Record(position, str(position), said, certainty=sure))
        return records, list(range(len(records)))

    def update(self, metrics: Mapping[str, SampleTable], records: Sequence[Record]) -> None:
        """Score each answer by the metric of its kind."""
        update_by_kind(metrics, records, [(q.asked.kind, q.answer) for q in self.items])

    def picture(self, name: Any) -> Image.Image:
        """The picture of this name."""
        return load(self.split, str(name))

    def inputs(self) -> dict[str, Any]:
        """What decides the answers beside the model."""
        return {**super().inputs(), "shown": self.shown}

    def headline(self, results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Accuracy of each kind."""
        return {kind: results[kind]["score"] for kind in self.kinds}

    def rows(self) -> list[dict[str, Any]]:
        """What is known of each question."""
        return [
            {
                "benchmark": q.asked.kind,
                "id": f"{name}/{k}",
                "picture": name,
                "question": q.prompt,
                "options": [],
                "answer": q.answer,
            }
            for name, posed in self.groups
            for k, q in enumerate(posed)
        ]

    def chance(self) -> dict[str, float]:
        """Blind score of each kind: the answer most often given to a question's text in training, where it is known;
        one of the options where a letter is asked for."""
        known, hits = majority(), dict.fromkeys(self.kinds, 0.0)
        for q in self.items:
            blind = known.get(q.asked.text)
            hits[q.asked.kind] += 1 / len(q.allowed) if q.form == "options" else float(blind == q.asked.answer)
        total = Counter(q.asked.kind for q in self.items)
        return {kind: hits[kind] / total[kind] for kind in self.kinds}


class FormSuite(SkillSuite):
    """easy-VQA alone, bare and in the wordings of VQAv2, POPE and MME: what the shipped second edition answers.

    "letters" asks for shape and colour with MMBench's four options.
    """

    name = "easy_vqa_forms"
    kinds = EASY_KINDS

    @staticmethod
    def pictures(size: str) -> tuple[int, int]:
        """52 (demo and quick), 190 or 500 pictures of easy-VQA."""
        return {"demo": 52, "quick": 52, "standard": 190, "full": 500}[size], 0

    def reposed(self, posed: list[Posed]) -> list[Posed]:
        """Every shape and colour once bare and once in VQAv2's wording; or as the control says."""
        if self.shown == "letters":
            return [repose(q, "options") for q in dict.fromkeys(posed) if q.asked.kind != "yes_no"]
        found, seen = [], set()
        for q in super().reposed(posed):
            if self.shown != "unseen" and q.asked.kind != "yes_no":
                q = repose(q, "word" if q.asked in seen else "plain")
            seen.add(q.asked)
            found.append(q)
        return found


def easy_pictures(split: Split, count: int) -> list[tuple[str, list[Posed]]]:
    """`count` pictures of easy-VQA: their shape and colour, each asked twice, and yes/no questions whose words mislead
    as often as they tell the answer (the words alone give away 82.5 % of easy-VQA's)."""
    groups, known = by_picture(easy_vqa.questions(split)), easy_vqa.majority_answers()
    found = []
    for number in sorted(random.Random(f"skills-{split}").sample(sorted(groups), count)):
        rng = random.Random(f"skills-{split}-{number}")
        piles: dict[str, list[Question]] = {"told": [], "misled": [], "shape": [], "colour": []}
        for q in rng.sample(groups[number], len(groups[number])):
            piles[("told" if known.get(q.text) == q.answer else "misled") if q.kind == "yes_no" else q.kind].append(q)
        pairs = min(2, len(piles["told"]), len(piles["misled"]))
        chosen = piles["told"][:pairs] + piles["misled"][:pairs] + 2 * piles["shape"][:1] + 2 * piles["colour"][:1]
        asked = [Asked(q.kind, q.text, q.answer, CANDIDATES[q.kind]) for q in chosen]
        found.append((f"easy/{number}", [_pose(q, rng) for q in asked]))
    return [(name, posed) for name, posed in found if posed]


def scene_pictures(split: Split, count: int) -> list[tuple[str, list[Posed]]]:
    """The first `count` scenes of a split, one question of every kind that each allows; what is written, twice."""
    found = []
    for number in range(count):
        rng = random.Random(f"skills-scene-{split}-{number}")
        by_kind: dict[str, Asked] = {}
        for question in rng.sample(every := ask(scene(split, number), rng), len(every)):
            by_kind.setdefault(question.kind, question)
        asked = [*by_kind.values(), *(q for kind, q in by_kind.items() if kind == "reading")]
        found.append((f"scene/{number}", [_pose(q, rng) for q in asked]))
    return found


def _pose(asked: Asked, rng: random.Random) -> Posed:
    form = draw_form(asked, rng)
    choices = options(asked, rng) if form == "options" else ()
    prompt, answer = worded(asked, form, choices)
    return Posed(asked, form, prompt, answer, tuple(LETTERS[: len(choices)]) if choices else asked.candidates)


def repose(posed: Posed, form: Form) -> Posed:
    """The same question in another wording."""
    choices = options(posed.asked, random.Random(posed.prompt)) if form == "options" else ()
    prompt, answer = worded(posed.asked, form, choices)
    allowed = tuple(LETTERS[: len(choices)]) if choices else posed.asked.candidates
    return Posed(posed.asked, form, prompt, answer, allowed)


def load(split: Split, name: str) -> Image.Image:
    """A picture by its name in a suite."""
    source, number = name.split("/")
    return easy_vqa.load_picture(split, int(number)) if source == "easy" else draw_scene(scene(split, int(number)))


@cache
def majority() -> dict[str, str]:
    """The answer most often given to each question text in training: what a blind model would say."""
    counts: dict[str, Counter[str]] = {}
    for number in range(2000):
        for q in ask(scene("train", number), random.Random(number)):
            counts.setdefault(q.text, Counter())[q.answer] += 1
    scenes = {text: max(sorted(votes), key=votes.__getitem__) for text, votes in counts.items()}
    return easy_vqa.majority_answers() | scenes


def _first_tokens(processor: LlavaNextProcessor, words: Sequence[str]) -> Tensor:
    ids = [processor.tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in words]
    if len(set(ids)) < len(ids):
        raise InputError(f"answers {', '.join(words)} do not all begin with different tokens for this tokenizer")
    return torch.tensor(ids)
