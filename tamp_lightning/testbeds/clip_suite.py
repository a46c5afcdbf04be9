"""Questions about procedural clips as four benchmarks: sight, sound, both at once, and order in time.

Every question has four options, as in VideoMME, and clips of three lengths. Answer rule: the option whose words are
likeliest, teacher-forced. Not its letter: a small language model that was not trained to follow such requests hardly
says any.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from tamp_lightning.data.packing import Packed
from tamp_lightning.evaluation.packed import PackedTask, packed_batch, update_by_kind
from tamp_lightning.evaluation.records import Record
from tamp_lightning.metrics import SCORERS, AnswerScore, SampleTable
from tamp_lightning.testbeds.clip_files import RATE, SIDE, draw, frame_count
from tamp_lightning.testbeds.clip_packing import AudioVisualProcessor, features, pack_video
from tamp_lightning.testbeds.clip_samples import clip_file
from tamp_lightning.testbeds.clips import CATEGORIES, DESIGN, Question, Split, make_clip, questions

SLICES = {"demo": 1, "quick": 1, "standard": 4, "full": 10}
"""Designs of 48 clips each."""
OPTIONS = 4
Shown = Literal["own", "shuffled", "muted", "blank"]


class ClipSuite(PackedTask):
    """The questions of one slice; an item is one clip with every option of its questions packed after it.

    Args:
        processor: the model's processor.
        split: "selection" to choose between variants, "test" to report.
        size: "demo" or "quick" (264 questions), "standard" (1,056) or "full" (2,640).
        shown: "own", or a control: another clip of the slice ("shuffled"), no sound ("muted"), or nothing to be seen
            ("blank", a grey picture with the clip's own sound).
    """

    name, answers = "clips", "likelihood"
    to_the_bit = True

    def __init__(
        self, processor: AudioVisualProcessor, split: Split = "test", size: str = "quick", shown: Shown = "own"
    ) -> None:
        self.processor, self.shown = processor, shown
        self.split: Split = split
        self.clips = [make_clip(split, number) for number in range(SLICES[size] * DESIGN)]
        asked = [questions(clip) for clip in self.clips]
        self.items: list[Question] = [question for group in asked for question in group]
        ends = torch.tensor([len(group) for group in asked]).cumsum(0).tolist()
        self.groups = [list(range(end - len(group), end)) for end, group in zip(ends, asked, strict=True)]
        ring = random.Random(0).sample(range(len(self.clips)), len(self.clips))
        self._stand_in = dict(zip(ring, ring[1:] + ring[:1], strict=True))

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Packed, list[int]]:
        positions = self.groups[index]
        turns = [(self.items[i].text, option) for i in positions for option in self.items[i].options]
        return pack_video(self.processor, features(self.processor, self._video(index)), turns), positions

    def _video(self, index: int) -> Any:
        clip = self.clips[self._stand_in[index] if self.shown == "shuffled" else index]
        file = str(clip_file(clip))
        if self.shown == "muted":
            return {"video": file, "audio": torch.zeros(round(clip.seconds * RATE))}
        if self.shown == "blank":
            grey = [Image.new("RGB", (SIDE, SIDE), (128, 128, 128))] * self.processor.num_frames
            return {"video": grey, "audio": file}
        return file

    def positions(self, index: int) -> Sequence[int]:
        """Questions about one clip."""
        return self.groups[index]

    def collate(self, samples: Sequence[tuple[Packed, list[int]]]) -> dict[str, Tensor]:
        """Packed batch; a turn is an option of a question."""
        return packed_batch(samples)

    def metrics(self) -> dict[str, SampleTable]:
        """One fresh metric per category, with means by length, kind, and whether the sound is needed."""
        groups = {
            "length": [q.clip.length for q in self.items],
            "kind": [q.kind for q in self.items],
            "sense": ["heard" if q.hears else "seen" for q in self.items],
        }
        return {name: AnswerScore(len(self.items), SCORERS["exact"], groups) for name in CATEGORIES}

    def judge(
        self, batch: Mapping[str, Tensor], log_probs: Tensor, labels: Tensor, first: Tensor
    ) -> tuple[list[Record], list[int]]:
        """The likeliest option of each question by the sum of log-probabilities over its tokens, and the right one's
        probability among the four."""
        turns = batch["turns"].to(log_probs.device)
        own = log_probs.gather(1, labels[:, None])[:, 0].double()
        sums = torch.zeros(len(first), dtype=torch.float64, device=own.device).index_add_(0, turns, own)
        by_question = sums.view(-1, OPTIONS)
        best, shares = by_question.argmax(1).tolist(), by_question.softmax(1).tolist()
        records, right = [], []
        for row, position in enumerate(batch["items"].tolist()):
            q = self.items[position]
            answer = q.options.index(q.answer)
            records.append(Record(position, str(q.id), q.options[best[row]], certainty=shares[row][answer]))
            right.append(OPTIONS * row + answer)
        return records, right

    def update(self, metrics: Mapping[str, SampleTable], records: Sequence[Record]) -> None:
        """Score each answer by the metric of its category."""
        update_by_kind(metrics, records, [(q.category, q.answer) for q in self.items])

    def picture(self, name: Any) -> Image.Image:
        """The middle picture of the clip with this number."""
        clip = make_clip(self.split, int(name))
        return draw(clip, frame_count(clip) // 2)

    def inputs(self) -> dict[str, Any]:
        """What decides the answers beside the model."""
        return {**super().inputs(), "shown": self.shown}

    def chance(self) -> dict[str, float]:
        """Blind score of each category: the answer most often right for a question text; one of four where none is."""
        counts: dict[str, dict[tuple[str, str], int]] = {}
        for q in self.items:
            votes = counts.setdefault(q.category, {})
            votes[q.text, q.answer] = votes.get((q.text, q.answer), 0) + 1
        found = {}
        for category, votes in counts.items():
            if category == "both":  # its options differ from clip to clip and are told apart by the clip alone
                found[category] = 1 / OPTIONS
                continue
            best = {text: max(n for (t, _), n in votes.items() if t == text) for text, _ in votes}
            found[category] = sum(best.values()) / sum(votes.values())
        return found

    def headline(self, results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Accuracy of each category."""
        return {name: results[name]["score"] for name in CATEGORIES}

    def rows(self) -> list[dict[str, Any]]:
        """What is known of each question."""
        return [
            {
                "benchmark": q.category,
                "id": str(q.id),
                "picture": str(q.clip.number),
                "length": q.clip.length,
                "kind": q.kind,
                "question": q.text,
                "options": list(q.options),
                "answer": q.answer,
            }
            for q in self.items
        ]
