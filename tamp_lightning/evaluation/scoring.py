"""Score a whole model teacher-forced: one forward pass per picture, no generation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from transformers import PreTrainedModel

from tamp_lightning.data.packing import IGNORE
from tamp_lightning.distributed.share import Share
from tamp_lightning.distributed.together import everyones
from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.suite import Suite
from tamp_lightning.metrics import DenseFidelity, SampleTable
from tamp_lightning.metrics.fidelity import kl_divergence

EXTRAS = ("labels", "segments", "answers", "items", "turns")


@dataclass
class Scores:
    """What one model did on one slice."""

    results: dict[str, dict[str, float]] = field(default_factory=dict)
    """Benchmark -> figure -> value; "fidelity" holds the distance to the dense model where one was given."""
    predictions: dict[int, str] = field(default_factory=dict)
    """Answer to each question, by its position in the slice."""
    certainty: dict[int, float] = field(default_factory=dict)
    """Probability of the right one among the answers that are allowed, by position."""
    values: dict[str, list[float]] = field(default_factory=dict)
    """Benchmark -> score of every position of the slice, NaN where it belongs to another benchmark."""
    divergence: dict[int, float] = field(default_factory=dict)
    """KL to the dense model, mean over the tokens of each question's answer, by its position in the slice."""
    log_probs: list[Tensor] = field(default_factory=list)
    """Per batch of this process, float32 [answer tokens, vocab]: kept from the dense model for the distance to it."""


def answer_rows(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Where answers stand.

    Args:
        batch: `labels` [B,n] and `answers` [questions,2] from `data.packing.collate`.

    Returns:
        bool [B,n] where an answer token follows, the labels [tokens] there, and the rows [questions] of these in front
        of each answer's first token.
    """
    wanted = batch["labels"] != IGNORE
    order = (wanted.flatten().cumsum(0) - 1).view_as(wanted)
    rows, positions = batch["answers"].unbind(1)
    return wanted, batch["labels"][wanted], order[rows, positions]


def answer_logits(model: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits where an answer token follows, nowhere else.

    Args:
        model: any transformers model with a body `model` and a head.
        batch: from `data.packing.collate`.

    Returns:
        logits [tokens,vocab], labels [tokens], and the rows [questions] of them in front of each answer's first token.
    """
    inputs = {k: v for k, v in batch.items() if k not in EXTRAS}
    hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
    wanted, labels, first = answer_rows(batch)
    return model.get_output_embeddings()(hidden[wanted]), labels, first


class Tally(torch.nn.Module):
    """What one model has answered so far.

    Args:
        suite: the questions.
        share: of this process.
    """

    def __init__(self, suite: Suite, share: Share) -> None:
        super().__init__()
        self.suite, self.share = suite, share
        self.metrics = torch.nn.ModuleDict(dict(suite.metrics()))
        self.fidelity = DenseFidelity()
        self.found = Scores()

    def add(self, batch: dict[str, Tensor], log_probs: Tensor, labels: Tensor, first: Tensor) -> None:
        """Take one batch: log-probabilities [tokens,vocab], the labels there, and each answer's first row."""
        items = batch["items"].tolist()
        predictions, certainty = self.suite.judge(batch, log_probs, labels, first)
        self.found.predictions.update(zip(items, predictions, strict=True))
        self.found.certainty.update(zip(items, certainty, strict=True))
        benchmarks, right = self.suite.benchmarks, self.suite.right
        for name, metric in self.metrics.items():
            rows = [r for r, i in enumerate(items) if benchmarks[i] == name]
            assert isinstance(metric, SampleTable)
            metric.update(batch["items"][rows], [predictions[r] for r in rows], [right[items[r]] for r in rows])

    def counted(self, batch: dict[str, Tensor]) -> Tensor:
        """[tokens] bool: those that enter the distance to the dense model."""
        return self.suite.counted(batch).to(batch["labels"].device)

    def compare(self, batch: dict[str, Tensor], dense: Tensor, own: Tensor, labels: Tensor, first: Tensor) -> None:
        """Take the distance to the dense model on one batch.

        Args:
            batch: as in `add`.
            dense: its log-probabilities [counted tokens,vocab].
            own: log-probabilities [tokens,vocab].
            labels: [tokens].
            first: [questions] row of each answer's first token.
        """
        counted = self.counted(batch)
        dense, own = dense.to(own.device), own[counted]
        self.fidelity.update(dense, own, labels[counted])
        places = counted.cumsum(0) - 1  # of the answers that count, among the tokens that count
        means = answer_means(kl_divergence(dense, own), places[first[counted[first]]]).tolist()
        self.found.divergence.update(zip(batch["items"].tolist(), means, strict=True))

    def scores(self) -> Scores:
        """Plain numbers over all processes."""
        found, kept = Scores(), ("predictions", "certainty", "divergence")
        for own in everyones(self.share, {name: getattr(self.found, name) for name in kept}):
            for name in kept:
                getattr(found, name).update(own[name])
        for kind, metric in self.metrics.items():
            assert isinstance(metric, SampleTable)
            found.results[kind] = {k: float(v) for k, v in metric.compute().items() if k != "coverage"}
            found.values[kind] = metric.values().tolist()
        if found.divergence:
            found.results["fidelity"] = {k: float(v) for k, v in self.fidelity.compute().items()}
        return found


def answer_means(values: Tensor, first: Tensor) -> Tensor:
    """Mean of [tokens] over each answer, answers standing one behind another and beginning at `first` [questions]."""
    starts, order = first.sort()
    lengths = torch.cat([starts[1:], starts.new_tensor([len(values)])]) - starts
    means = torch.segment_reduce(values, "mean", lengths=lengths)
    return torch.empty_like(means).index_copy_(0, order, means)


class ScoreModule(L.LightningModule):
    """Validation loop over one suite; with the dense model's log-probabilities it also measures the distance to it."""

    def __init__(
        self, model: PreTrainedModel, suite: Suite, dense: Scores | None = None, share: Share | None = None
    ) -> None:
        super().__init__()
        self.model, self.dense = model.eval(), dense
        self.tally = Tally(suite, share or Share(1))
        self.scores = Scores()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Score one batch of pictures."""
        logits, labels, first = answer_logits(self.model, batch)
        log_probs = logits.float().log_softmax(-1)
        if self.dense is None:
            self.scores.log_probs.append(log_probs[self.tally.counted(batch)].cpu())
        else:
            self.tally.compare(batch, self.dense.log_probs[batch_idx], log_probs, labels, first)
        self.tally.add(batch, log_probs, labels, first)

    def on_validation_epoch_end(self) -> None:
        """Turn metric states into plain numbers."""
        self.scores = replace(self.tally.scores(), log_probs=self.scores.log_probs)


def score_loader(suite: Suite, batch_size: int, trainer: L.Trainer) -> tuple[DataLoader, Share]:
    """The batches that a process scores, each as it is with one process.

    Raises:
        InputError: there are more processes than can share the batches.
    """
    batches = list(BatchSampler(SequentialSampler(suite), batch_size, drop_last=False))
    share = Share(len(batches), trainer.global_rank, trainer.world_size)
    if share.processes > share.leaves:
        raise InputError(
            f"trainer asks for {share.processes} processes, and {share.batches} batches of pictures can be shared by "
            f"{share.leaves}: lower scores.batch_size or devices"
        )
    own = [batches[number] for number in share.own]
    return DataLoader(suite, batch_sampler=own, collate_fn=suite.collate), share  # type: ignore[arg-type]


def score(
    model: PreTrainedModel, suite: Suite, trainer: L.Trainer, *, batch_size: int = 8, dense: Scores | None = None
) -> Scores:
    """Score `model` on `suite` with `trainer.validate`; each process takes some of the batches.

    Raises:
        InputError: there are more processes than can share the batches.
    """
    loader, share = score_loader(suite, batch_size, trainer)
    module = ScoreModule(model, suite, dense, share)
    trainer.validate(module, loader, verbose=False)
    return module.scores
