"""Scores of a whole model as a record of a run's state, so that a continued run need not score it again."""

from __future__ import annotations

from typing import Any

import torch

from tamp_lightning.evaluation.scoring import Scores
from tamp_lightning.runs.state import RunState

VALUES, LOGS = "values", "log_probs"
BY_QUESTION = ("predictions", "certainty", "divergence")


def save_scores(state: RunState, name: str, scores: Scores) -> None:
    """Keep scores under a name; numbers keep their bits."""
    tensors = {f"{VALUES}.{kind}": torch.tensor(rows, dtype=torch.float64) for kind, rows in scores.values.items()}
    tensors |= {f"{LOGS}.{k}": rows.contiguous() for k, rows in enumerate(scores.log_probs)}
    answers = {field: list(getattr(scores, field).items()) for field in BY_QUESTION}
    state.save(name, {"results": scores.results, **answers}, tensors)


def load_scores(state: RunState, name: str) -> Scores | None:
    """Scores kept under a name, None if there are none.

    Raises:
        InputError: the record is damaged.
    """
    record = state.load(name)
    if record is None:
        return None
    content, tensors = record
    values = {key.partition(".")[2]: rows.tolist() for key, rows in tensors.items() if key.startswith(f"{VALUES}.")}
    logs = [tensors[f"{LOGS}.{k}"] for k in range(len(tensors) - len(values))]
    answers: dict[str, Any] = {field: {int(item): answer for item, answer in content[field]} for field in BY_QUESTION}
    return Scores(results=content["results"], values=values, log_probs=logs, **answers)
