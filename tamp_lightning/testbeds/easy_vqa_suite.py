"""easy-VQA as three benchmarks: balanced yes/no, shape, colour.

Answer rule: each benchmark has a closed set of answers that differ in their first token; the likeliest first token
wins. That is the branch greedy decoding restricted to the set would take, told from one teacher-forced forward pass.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaNextProcessor

from tamp_lightning.data import easy_vqa
from tamp_lightning.data.easy_vqa import CANDIDATES, Kind, Question, Split
from tamp_lightning.data.packing import Packed, pack
from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.packed import PackedTask, packed_batch, update_by_kind
from tamp_lightning.evaluation.records import Record
from tamp_lightning.metrics import SCORERS, AnswerScore, SampleTable, YesNo

SLICES = {"demo": 320, "quick": 400, "standard": 1500, "full": None}
DEMO_PICTURES = 100
"""A third of those of the quick slice: time goes by pictures, and intervals grow with fewer of them."""
HEADLINE: dict[Kind, str] = {"yes_no": "accuracy", "shape": "score", "colour": "score"}
Pictures = Literal["own", "shuffled", "blank"]


class EasyVqaSuite(PackedTask):
    """The questions of one slice, grouped by picture; an item is one picture with its packed questions.

    Args:
        processor: the model's processor.
        split: "selection" to choose between variants, "test" to report.
        size: "demo" (about 320 questions on 100 pictures), "quick" (about 400 questions), "standard" (about 1,500) or
            "full" (every question, not balanced).
        pictures: "own", or a control: another picture of the slice ("shuffled"), or plain grey ("blank").

    Raises:
        InputError: two answers of a benchmark begin with the same token.
        FileNotFoundError: easy-VQA is not installed.
    """

    name, answers = "easy_vqa", "teacher_forced"
    to_the_bit = True

    def __init__(
        self, processor: LlavaNextProcessor, split: Split = "test", size: str = "quick", pictures: Pictures = "own"
    ) -> None:
        self.processor, self.pictures = processor, pictures
        self.split: Split = split
        count = SLICES[size]
        self.items: list[Question] = (
            list(easy_vqa.questions(split))
            if count is None
            else easy_vqa.balanced_slice(split, count, pictures=DEMO_PICTURES if size == "demo" else None)
        )
        self.first_tokens = {kind: _first_tokens(processor, words) for kind, words in CANDIDATES.items()}
        groups: dict[int, list[int]] = {}
        for position, question in enumerate(self.items):
            groups.setdefault(question.picture, []).append(position)
        self.groups = list(groups.items())
        numbers = list(groups)
        ring = random.Random(0).sample(numbers, len(numbers))
        self._stand_in = dict(zip(ring, ring[1:] + ring[:1], strict=True))

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> tuple[Packed, list[int]]:
        number, positions = self.groups[index]
        turns = [(self.items[i].text, self.items[i].answer) for i in positions]
        return pack(self.processor, self._picture(number), turns), positions

    def _picture(self, number: int) -> Image.Image:
        if self.pictures == "blank":
            return Image.new("RGB", easy_vqa.load_picture(self.split, number).size, (128, 128, 128))
        return easy_vqa.load_picture(self.split, self._stand_in[number] if self.pictures == "shuffled" else number)

    def positions(self, index: int) -> Sequence[int]:
        """Questions about one picture."""
        return self.groups[index][1]

    def collate(self, samples: Sequence[tuple[Packed, list[int]]]) -> dict[str, Tensor]:
        """Packed batch; a turn is a question with its right answer."""
        return packed_batch(samples)

    def metrics(self) -> dict[str, SampleTable]:
        """One fresh metric per benchmark, its rows being positions in the slice."""
        total = len(self.items)
        return {
            "yes_no": YesNo(total, protocol="lmms"),
            "shape": AnswerScore(total, SCORERS["exact"]),
            "colour": AnswerScore(total, SCORERS["exact"]),
        }

    def predict(self, items: Tensor, logits: Tensor) -> list[str]:
        """Answer to each question from the logits [questions,vocab] before its first answer token."""
        answers = []
        for position, row in zip(items.tolist(), logits, strict=True):
            kind = self.items[position].kind
            answers.append(CANDIDATES[kind][int(row[self.first_tokens[kind].to(row.device)].argmax())])
        return answers

    def certainty(self, items: Tensor, logits: Tensor) -> list[float]:
        """Probability of the right answer among those of its benchmark; arguments as of `predict`."""
        found = []
        for position, row in zip(items.tolist(), logits, strict=True):
            question = self.items[position]
            words = CANDIDATES[question.kind]
            share = row[self.first_tokens[question.kind].to(row.device)].float().softmax(0)
            found.append(float(share[words.index(question.answer)]))
        return found

    def judge(
        self, batch: Mapping[str, Tensor], log_probs: Tensor, labels: Tensor, first: Tensor
    ) -> tuple[list[Record], list[int]]:
        """Answers to the batch's `items` and their certainty (`predict`, `certainty`); every turn is a right answer."""
        items, rows = batch["items"], log_probs[first]
        said = zip(items.tolist(), self.predict(items, rows), self.certainty(items, rows), strict=True)
        records = [Record(i, str(self.items[i].id), reply, certainty=sure) for i, reply, sure in said]
        return records, list(range(len(records)))

    def update(self, metrics: Mapping[str, SampleTable], records: Sequence[Record]) -> None:
        """Score each answer by the metric of its kind."""
        update_by_kind(metrics, records, [(q.kind, q.answer) for q in self.items])

    def picture(self, name: Any) -> Image.Image:
        """The picture with this number."""
        return easy_vqa.load_picture(self.split, int(name))

    def headline(self, results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """The one figure of each benchmark that enters retention."""
        return headline(results)

    def rows(self) -> list[dict[str, Any]]:
        """What is known of each question."""
        return [
            {
                "benchmark": q.kind,
                "id": str(q.id),
                "picture": str(q.picture),
                "question": q.text,
                "options": [],
                "answer": q.answer,
            }
            for q in self.items
        ]

    def inputs(self) -> dict[str, Any]:
        """What decides the answers beside the model."""
        return {**super().inputs(), "shown": self.pictures}

    def chance(self) -> dict[str, float]:
        """Blind score of each benchmark: the answer most often given to a question text in the training split."""
        majority = easy_vqa.majority_answers()
        right: dict[str, list[bool]] = {}
        for q in self.items:
            right.setdefault(q.kind, []).append(majority.get(q.text) == q.answer)
        return {kind: sum(hits) / len(hits) for kind, hits in right.items()}


def _first_tokens(processor: LlavaNextProcessor, words: Sequence[str]) -> Tensor:
    ids = [processor.tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in words]
    if len(set(ids)) < len(ids):
        raise InputError(f"answers {', '.join(words)} do not all begin with different tokens for this tokenizer")
    return torch.tensor(ids)


def headline(results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The one figure of each benchmark that enters retention."""
    return {kind: results[kind][key] for kind, key in HEADLINE.items()}
