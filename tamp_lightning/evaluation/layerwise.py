"""Scores of the dense and the pruned model from questions that pass each block together with calibration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tamp_lightning.checkpoint.head import head_logits
from tamp_lightning.evaluation.packed import EXTRAS, PackedTask, answer_rows
from tamp_lightning.evaluation.scoring import Scores, score_again
from tamp_lightning.evaluation.store import AnswersInMemory
from tamp_lightning.evaluation.task import Task
from tamp_lightning.passes.callbacks.layerwise import Extras, LayerwiseCallback
from tamp_lightning.passes.contract import BlockPass


class LayerwiseScores(LayerwiseCallback):
    """Scores tasks without a whole model in memory, to the figures of `evaluation.scoring.score`.

    Args:
        tasks: what to score.
        batch_size: pictures per batch.
    """

    def __init__(self, tasks: list[PackedTask], batch_size: int) -> None:
        super().__init__()
        self.tasks, self.batch_size = tasks, batch_size
        self.dense, self.pruned = ([AnswersInMemory() for _ in tasks] for _ in range(2))

    @classmethod
    def of(cls, tasks: Iterable[Task], batch_size: int) -> LayerwiseScores:
        """Those of the packed among tasks; others need a whole model."""
        return cls([task for task in tasks if isinstance(task, PackedTask)], batch_size)

    def start(self, trainer: L.Trainer) -> Iterator[tuple[dict[str, Tensor], Extras]]:
        """This process's batches of all tasks."""
        for number, task in enumerate(self.tasks):
            own = list(task.batches(self.batch_size))[trainer.global_rank :: trainer.world_size]
            for batch in DataLoader(task, batch_sampler=own, collate_fn=task.collate):
                unread = task.unread(batch)
                for answers in (self.dense[number], self.pruned[number]):
                    answers.append(0, unread, {})
                if "items" not in batch:
                    continue
                extras = {k: v for k, v in batch.items() if k in EXTRAS and isinstance(v, Tensor)}
                yield {k: v for k, v in batch.items() if k not in EXTRAS}, {**extras, "task": torch.tensor(number)}

    def finish(self, pl_module: BlockPass, extras: Extras, dense: Tensor, pruned: Tensor) -> None:
        """Score one batch of both models."""
        batch = {k: v.to(dense.device) for k, v in extras.items()}
        number = int(batch.pop("task"))
        wanted, labels, first = answer_rows(batch)
        stream = pl_module.stream
        before, after = (
            head_logits(stream.model, stream.facts.blocks, hidden[wanted]).float().log_softmax(-1)
            for hidden in (dense, pruned)
        )
        task = self.tasks[number]
        records, log_probs = task.read(batch, before, labels, first, None)
        self.dense[number].append(0, records, {})
        self.pruned[number].append(0, task.read(batch, after, labels, first, log_probs)[0], {})

    def scores(self) -> tuple[list[Scores], list[Scores]]:
        """What the dense and the pruned model did on each task, over all processes; once all have arrived."""
        for answers in (*self.dense, *self.pruned):
            answers.gather()
        dense, pruned = (
            [score_again(task, answers) for task, answers in zip(self.tasks, own, strict=True)]
            for own in (self.dense, self.pruned)
        )
        return dense, pruned
