"""The one loop that scores: `trainer.validate` over the questions of a task that have no answer yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from tamp_lightning.evaluation.records import Record
from tamp_lightning.evaluation.store import Answers, AnswersInMemory
from tamp_lightning.evaluation.task import LogProbs, Task, on_device
from tamp_lightning.metrics import SampleTable
from tamp_lightning.metrics.fidelity import means


@dataclass
class Scores:
    """What one model did on one task."""

    results: dict[str, dict[str, float]] = field(default_factory=dict)
    """Benchmark -> figure -> value; "fidelity" holds the distance to the dense model where it was taken."""
    records: dict[int, Record] = field(default_factory=dict)
    """What was said to each question, by its position."""
    values: dict[str, list[float]] = field(default_factory=dict)
    """Benchmark -> score of every position, NaN where it belongs to another benchmark or was not asked."""
    log_probs: LogProbs = field(default_factory=dict)
    """Of the dense model, for the distance to it; empty where nothing is compared token by token."""

    @property
    def predictions(self) -> dict[int, str]:
        """Answer to each question, by its position."""
        return {position: record.reply for position, record in self.records.items()}

    @property
    def certainty(self) -> dict[int, float]:
        """Probability of the right one among the answers that are allowed, by position."""
        return {n: record.certainty for n, record in self.records.items() if record.certainty is not None}

    @property
    def divergence(self) -> dict[int, float]:
        """KL to the dense model in nats, mean over the tokens of each question's answer, by position."""
        return {n: record.kl for n, record in self.records.items() if record.kl is not None}


class Tally(torch.nn.Module):
    """The metrics of a task, over all processes."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.metrics = torch.nn.ModuleDict(dict(task.metrics()))

    def add(self, records: Iterable[Record]) -> None:
        """Score some records; those of questions that could not be asked are passed over."""
        said = [record for record in records if record.bad is None]
        if said:
            self.task.update(self.tables, said)

    @property
    def tables(self) -> dict[str, SampleTable]:
        """The metrics by benchmark."""
        return {name: metric for name, metric in self.metrics.items() if isinstance(metric, SampleTable)}

    def scores(self) -> Scores:
        """Figures and scores of single questions as plain numbers; all processes have to call this."""
        found, several = Scores(), len(self.tables) > 1  # then coverage is no more than each one's part
        for name, metric in self.tables.items():
            figures = metric.compute().items()
            found.results[name] = {k: float(v) for k, v in figures if not (several and k == "coverage")}
            found.values[name] = metric.values().tolist()
        return found


def with_records(scores: Scores, task: Task, answers: Answers) -> Scores:
    """Scores with what was said, and the distance to the dense model where it was taken."""
    scores.records, scores.log_probs = answers.records(), answers.log_probs()
    for name, figures in task.figures(scores.records).items():
        scores.results.setdefault(name, {}).update(figures)
    sums = [record.fidelity for record in scores.records.values() if record.fidelity]
    if sums:
        scores.results["fidelity"] = means([sum(column) for column in zip(*sums, strict=True)])
    return scores


class EvaluationModule(L.LightningModule):
    """Asks what `answers` has no record of, a batch at a time, and scores all of it with torchmetrics.

    Batches are the same whatever the number of processes, each of which takes every n-th. A process without a batch
    would skip the loop and leave the others waiting, so it repeats the first, which a table by position does not mind.

    Args:
        model: in evaluation mode.
        task: the questions.
        answers: where records go.
        batch_size: examples per batch.
        dense: log-probabilities of the dense model, where the distance to it is wanted.
        keep_log_probs: keep those of this model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        task: Task,
        answers: Answers,
        batch_size: int,
        dense: LogProbs | None = None,
        keep_log_probs: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.task, self.answers, self.dense = model.eval(), task, answers, dense
        self.batch_size, self.keep_log_probs = batch_size, keep_log_probs
        self.tally, self.scores = Tally(task), Scores()
        self.done = answers.records()

    def pending(self) -> list[list[int]]:
        """Batches with a question that has no record."""
        held = self.answers.log_probs() if self.keep_log_probs and self.task.answers != "generate" else self.done
        done = held.keys() & self.done.keys() | {n for n, record in self.done.items() if record.bad}
        batches = self.task.batches(self.batch_size)
        return [batch for batch in batches if any(not done.issuperset(self.task.positions(k)) for k in batch)]

    def val_dataloader(self) -> DataLoader:
        """This process's share."""
        batches = self.pending()
        own = batches[self.trainer.global_rank :: self.trainer.world_size] or batches[:1]
        return DataLoader(self.task, batch_sampler=own, collate_fn=self.task.collate)

    def on_validation_start(self) -> None:
        """Take over what an earlier run answered."""
        self.tally.add(self.done.values())

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Answer one batch and keep the records."""
        records, log_probs = self.task.answer(self.model, on_device(batch, self.device), self.dense)
        self.answers.append(self.global_rank, records, log_probs if self.keep_log_probs else {})
        self.tally.add(records)

    def on_validation_epoch_end(self) -> None:
        """Merge the metrics of all processes."""
        self.answers.gather()
        self.scores = self.tally.scores()


def score_into(
    answers: Answers,
    model: PreTrainedModel,
    task: Task,
    trainer: L.Trainer,
    *,
    batch_size: int = 8,
    dense: LogProbs | None = None,
    keep_log_probs: bool = False,
) -> Scores:
    """Answer what `answers` has no record of with `trainer.validate`, and score all of it.

    Raises:
        BadMedia: a picture, video or sound cannot be read, and the task does not leave such out.
        ValueError: a prompt is too long for the model.
    """
    module = EvaluationModule(model, task, answers, batch_size, dense, keep_log_probs)
    if not module.pending():  # killed between the last answer and the scores
        return score_again(task, answers)
    trainer.validate(module, verbose=False)
    trainer.strategy.barrier()
    return with_records(module.scores, task, answers)


def score_again(task: Task, answers: Answers) -> Scores:
    """Scores of questions that have all been answered; every process has all records, so nothing is merged."""
    tally = Tally(task)
    for metric in tally.tables.values():
        metric.distributed_available_fn = lambda: False
    tally.add(answers.records().values())
    return with_records(tally.scores(), task, answers)


def score(
    model: PreTrainedModel, task: Task, trainer: L.Trainer, *, batch_size: int = 8, dense: Scores | None = None
) -> Scores:
    """Score `model` on `task`; nothing is kept on disk.

    Args:
        dense: scores of the dense model, where the distance to it is wanted; without, log-probabilities are kept.
    """
    reference = None if dense is None else dense.log_probs or None
    options: dict[str, Any] = {"batch_size": batch_size, "dense": reference, "keep_log_probs": dense is None}
    return score_into(AnswersInMemory(), model, task, trainer, **options)
