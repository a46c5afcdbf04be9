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
from torch.utils.data import Dataset
from transformers import LlavaNextProcessor

from tamp_lightning.data import easy_vqa
from tamp_lightning.data.easy_vqa import CANDIDATES, Kind, Question, Split
from tamp_lightning.data.packing import IGNORE, Packed, collate, pack
from tamp_lightning.errors import InputError
from tamp_lightning.metrics import SCORERS, AnswerScore, SampleTable, YesNo

SLICES = {"quick": 400, "standard": 1500, "full": None}
HEADLINE: dict[Kind, str] = {"yes_no": "accuracy", "shape": "score", "colour": "score"}
Pictures = Literal["own", "shuffled", "blank"]


class EasyVqaSuite(Dataset[tuple[Packed, list[int]]]):
    """The questions of one slice, grouped by picture; an item is one picture with its packed questions.

    Args:
        processor: the model's processor.
        split: "selection" to choose between variants, "test" to report.
        size: "quick" (about 400 questions), "standard" (about 1,500) or "full" (every question, not balanced).
        pictures: "own", or a control: another picture of the slice ("shuffled"), or plain grey ("blank").

    Raises:
        InputError: two answers of a benchmark begin with the same token.
        FileNotFoundError: easy-VQA is not installed.
    """

    def __init__(
        self, processor: LlavaNextProcessor, split: Split = "test", size: str = "quick", pictures: Pictures = "own"
    ) -> None:
        self.processor, self.split, self.pictures = processor, split, pictures
        count = SLICES[size]
        self.items: list[Question] = (
            list(easy_vqa.questions(split)) if count is None else easy_vqa.balanced_slice(split, count)
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

    @staticmethod
    def collate(samples: Sequence[tuple[Packed, list[int]]]) -> dict[str, Tensor]:
        """Packed batch plus `items` [questions]: their positions in the slice, in the order of `answers`."""
        batch = collate([packed for packed, _ in samples])
        return {**batch, "items": torch.tensor([i for _, positions in samples for i in positions])}

    @property
    def benchmarks(self) -> list[str]:
        """Kind of each question."""
        return [q.kind for q in self.items]

    @property
    def right(self) -> list[str]:
        """Right answer to each question."""
        return [q.answer for q in self.items]

    def metrics(self) -> dict[str, SampleTable]:
        """One fresh metric per benchmark, its rows being positions in the slice."""
        total = len(self.items)
        return {
            "yes_no": YesNo(total, protocol="lmms"),
            "shape": AnswerScore(total, SCORERS["exact"]),
            "colour": AnswerScore(total, SCORERS["exact"]),
        }

    def predict(self, items: Tensor, logits: Tensor) -> list[str]:
        """Answer to each question from the logits [questions,vocab] in front of its first answer token."""
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
    ) -> tuple[list[str], list[float]]:
        """Answers to the batch's `items` and their certainty; see `predict` and `certainty`."""
        return self.predict(batch["items"], log_probs[first]), self.certainty(batch["items"], log_probs[first])

    def picture(self, number: int) -> Image.Image:
        """The picture with this number."""
        return easy_vqa.load_picture(self.split, number)

    def counted(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Every answer token enters the distance to the dense model."""
        return torch.ones(int((batch["labels"] != IGNORE).sum()), dtype=torch.bool)

    def headline(self, results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """The one figure of each benchmark that enters retention."""
        return headline(results)

    def rows(self) -> list[dict[str, Any]]:
        """What is known of each question."""
        return [
            {"benchmark": q.kind, "id": q.id, "picture": q.picture, "question": q.text, "answer": q.answer}
            for q in self.items
        ]

    def floor(self) -> dict[str, float]:
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
