"""Score a whole model teacher-forced: one forward pass per picture, no generation."""

from __future__ import annotations

from dataclasses import dataclass, field

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from tamp_lightning.benchmarks.suite import Suite
from tamp_lightning.data.packing import IGNORE
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
    """Per batch, float32 [answer tokens, vocab]: kept from the dense model for the distance to it."""


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
    wanted = batch["labels"] != IGNORE
    logits = model.get_output_embeddings()(hidden[wanted])
    order = (wanted.flatten().cumsum(0) - 1).view_as(wanted)
    rows, positions = batch["answers"].unbind(1)
    return logits, batch["labels"][wanted], order[rows, positions]


def answer_means(values: Tensor, first: Tensor) -> Tensor:
    """Mean of [tokens] over each answer, answers standing one behind another and beginning at `first` [questions]."""
    starts, order = first.sort()
    lengths = torch.cat([starts[1:], starts.new_tensor([len(values)])]) - starts
    means = torch.segment_reduce(values, "mean", lengths=lengths)
    return torch.empty_like(means).index_copy_(0, order, means)


class ScoreModule(L.LightningModule):
    """Validation loop over one suite; with the dense model's log-probabilities it also measures the distance to it."""

    def __init__(self, model: PreTrainedModel, suite: Suite, dense: Scores | None = None) -> None:
        super().__init__()
        self.model, self.suite, self.dense = model.eval(), suite, dense
        self.metrics = torch.nn.ModuleDict(dict(suite.metrics()))
        self.fidelity = DenseFidelity()
        self.scores = Scores()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Score one batch of pictures."""
        logits, labels, first = answer_logits(self.model, batch)
        log_probs = logits.float().log_softmax(-1)
        items = batch["items"].tolist()
        self._compare(batch_idx, log_probs, labels, first, batch)
        predictions, certainty = self.suite.judge(batch, log_probs, labels, first)
        self.scores.predictions.update(zip(items, predictions, strict=True))
        self.scores.certainty.update(zip(items, certainty, strict=True))
        benchmarks, right = self.suite.benchmarks, self.suite.right
        for name, metric in self.metrics.items():
            rows = [r for r, i in enumerate(items) if benchmarks[i] == name]
            assert isinstance(metric, SampleTable)
            metric.update(batch["items"][rows], [predictions[r] for r in rows], [right[items[r]] for r in rows])

    def _compare(
        self, batch_idx: int, log_probs: Tensor, labels: Tensor, first: Tensor, batch: dict[str, Tensor]
    ) -> None:
        """Keep the dense model's log-probabilities of the right answers, or measure the distance to them."""
        counted = self.suite.counted(batch).to(labels.device)
        if self.dense is None:
            self.scores.log_probs.append(log_probs[counted].cpu())
            return
        dense, own = self.dense.log_probs[batch_idx].to(log_probs.device), log_probs[counted]
        self.fidelity.update(dense, own, labels[counted])
        places = counted.cumsum(0) - 1  # of the answers that count, among the tokens that count
        means = answer_means(kl_divergence(dense, own), places[first[counted[first]]]).tolist()
        self.scores.divergence.update(zip(batch["items"].tolist(), means, strict=True))

    def on_validation_epoch_end(self) -> None:
        """Turn metric states into plain numbers."""
        for kind, metric in self.metrics.items():
            assert isinstance(metric, SampleTable)
            self.scores.results[kind] = {k: float(v) for k, v in metric.compute().items() if k != "coverage"}
            self.scores.values[kind] = metric.values().tolist()
        if self.dense is not None:
            self.scores.results["fidelity"] = {k: float(v) for k, v in self.fidelity.compute().items()}


def score(
    model: PreTrainedModel, suite: Suite, trainer: L.Trainer, *, batch_size: int = 8, dense: Scores | None = None
) -> Scores:
    """Score `model` on `suite` with `trainer.validate`."""
    module = ScoreModule(model, suite, dense)
    loader: DataLoader = DataLoader(suite, batch_size, collate_fn=suite.collate)  # type: ignore[arg-type]
    trainer.validate(module, loader, verbose=False)
    return module.scores
