"""Scores of checkpoints on tasks: answers come from the user's cache, and the model is read only for what is left."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import torch
from filelock import FileLock
from transformers import AutoConfig, PreTrainedModel

from tamp_lightning.evaluation.scoring import Scores, score_again, score_into
from tamp_lightning.evaluation.store import Store, trim
from tamp_lightning.evaluation.task import Task
from tamp_lightning.evaluation.whole import answers_folder, checkpoint_sha256, load_whole
from tamp_lightning.passes.trainer import scoring_trainer
from tamp_lightning.runs.clock import PhaseClock
from tamp_lightning.runs.environment import environment

HASH_LENGTH = 8


@dataclass
class Scorer:
    """Scores any checkpoint on the same tasks."""

    tasks: Sequence[Task]
    batch_size: int = 8
    """Pictures or questions per batch."""
    dtype: torch.dtype | None = None
    """What to compute in; None = the checkpoint's own."""
    trainer: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of lightning.Trainer."""
    clock: PhaseClock = field(default_factory=PhaseClock)
    say: Callable[[str], None] = lambda line: None
    """Takes a line on what came from the cache."""

    def score(self, folder: Path, phase: str, dense: Path | None = None) -> list[Scores]:
        """Scores of the checkpoint in `folder` on each task.

        Args:
            folder: the checkpoint.
            phase: what the progress bar and the clock call it.
            dense: the dense checkpoint, already scored, where the distance to it is wanted; without, log-probabilities
                are kept so that others can be compared with this one.

        Raises:
            BadMedia, ValueError: see `scoring.score_into`.
        """
        if dense is not None and any(self._left(task, _Checkpoint(dense, self.dtype), None) for task in self.tasks):
            self.score(dense, "score dense")  # another command made room in the cache
        trainer = scoring_trainer(phase, **self.trainer)
        own = _Checkpoint(folder, self.dtype)
        found = []
        for task in self.tasks:
            reference = self.store(task, dense) if dense is not None and task.answers != "generate" else None
            with self.clock.phase(phase) if self._left(task, own, reference) else nullcontext():
                found.append(self._score(task, own, trainer, reference))
        own.forget()
        return found

    def store(self, task: Task, folder: Path, reference: Store | None = None) -> Store:
        """Where the answers of a checkpoint are kept; `dense` in the inputs is the key of what it is compared with."""
        checkpoint = checkpoint_sha256(folder)
        inputs = {**task.inputs(), "answers": task.answers, "checkpoint": checkpoint, "dtype": self._dtype(folder)}
        if task.to_the_bit:
            inputs |= {"batch_size": self.batch_size, "environment": environment()}
        if reference is not None:
            inputs["dense"] = reference.folder.name
        return Store(answers_folder() / checkpoint[:HASH_LENGTH], task.name, inputs)

    def _left(self, task: Task, own: _Checkpoint, reference: Store | None) -> bool:
        store = self.store(task, own.folder, reference)
        return not (store.finished and (reference is not None or _has_log_probs(task, store)))

    def _score(self, task: Task, own: _Checkpoint, trainer: L.Trainer, reference: Store | None) -> Scores:
        store, first = self.store(task, own.folder, reference), trainer.is_global_zero
        with _alone(store, first):
            if not trainer.strategy.broadcast(self._left(task, own, reference)):
                store.touch()
                self.say(f"{task.name}: {len(store.records())} answers of {own.folder.name} from the cache")
                return score_again(task, store)
            store.start()
            started = time.perf_counter()
            scores = score_into(
                store,
                own.model,
                task,
                trainer,
                batch_size=self.batch_size,
                dense=None if reference is None else reference.log_probs(),
                keep_log_probs=reference is None,
            )
            if first:
                store.finish(time.perf_counter() - started)
                trim(answers_folder(), self._in_use(own.folder) | ({reference.folder} if reference else set()))
            trainer.strategy.barrier()
            return scores

    def _in_use(self, folder: Path) -> set[Path]:
        return {self.store(task, folder).folder for task in self.tasks}

    def _dtype(self, folder: Path) -> str:
        return str(self.dtype or AutoConfig.from_pretrained(folder).dtype).removeprefix("torch.")


class _Checkpoint:
    """A checkpoint whose model is read when it is asked for."""

    def __init__(self, folder: Path, dtype: torch.dtype | None) -> None:
        self.folder, self.dtype = folder, dtype

    @cached_property
    def model(self) -> PreTrainedModel:
        """The whole model."""
        return load_whole(self.folder, self.dtype)

    def forget(self) -> None:
        """Free the model's memory."""
        self.__dict__.pop("model", None)
        gc.collect()


def _has_log_probs(task: Task, store: Store) -> bool:
    if task.answers == "generate":
        return True
    asked = {position for position, record in store.records().items() if record.bad is None}
    return asked <= store.log_probs().keys()


@contextmanager
def _alone(store: Store, first: bool) -> Iterator[None]:
    """Let other commands that want the same answers wait until they are there; the first process holds the lock."""
    if not first:
        yield
        return
    store.folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(store.folder.with_suffix(".lock")):
        yield
