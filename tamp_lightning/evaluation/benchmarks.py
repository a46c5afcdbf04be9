"""One benchmark and one model: answer what is left, score all of it, keep it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L
from transformers import PreTrainedModel, ProcessorMixin

from tamp_lightning.benchmarks.base import Benchmark
from tamp_lightning.data.readers.item import Items
from tamp_lightning.evaluation.generate import AnswerModule, Answers, Way
from tamp_lightning.evaluation.likelihood import LikelihoodModule
from tamp_lightning.evaluation.predictions import Store
from tamp_lightning.metrics.reasoning import final_answer
from tamp_lightning.runs.environment import environment

Model = Callable[[], PreTrainedModel]


@dataclass(frozen=True)
class Task:
    """One benchmark to be scored, its questions read and its folder named."""

    benchmark: Benchmark
    items: Items
    store: Store
    way: Way
    about: Mapping[str, str]
    """What the scores say of themselves beside the figures: checkpoint, answers, prompt."""


def answer_all(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    benchmark: Benchmark,
    items: Items,
    store: Store,
    trainer: L.Trainer,
    way: Way,
) -> Answers:
    """Answer every question of a benchmark that `store` has no record of, and score all of them.

    Args:
        trainer: of `scoring_trainer`; each process takes its own share.

    Raises:
        BadMedia: a picture, video or sound cannot be read, and `way.skip_bad` is not set.
        InputError: a prompt is too long for the model.
    """
    kind = LikelihoodModule if way.likelihood else AnswerModule
    module = kind(model, processor, benchmark, items, store, way)
    if len(module.done) == len(items):  # killed between the last answer and the scores
        module.on_validation_start()
        module.on_validation_epoch_end()
    else:
        trainer.validate(module, verbose=False)
    return module.answers


def run_task(task: Task, model: Model, processor: ProcessorMixin, trainer: L.Trainer) -> dict[str, Any]:
    """Scores of one benchmark: those on disk, or fresh ones, which are written.

    Args:
        model: gives the model, and is only called where a question is left to ask.
        trainer: of `scoring_trainer`.

    Raises:
        BadMedia, InputError: see `answer_all`.
    """
    held = task.store.scores
    if held is not None:
        return held
    task.store.start()
    answers = answer_all(model(), processor, task.benchmark, task.items, task.store, trainer, task.way)
    trainer.strategy.barrier()
    scores = _scores(task, answers)
    if trainer.is_global_zero:
        if not task.items.scored:
            scores["submission"] = _submit(task)
        task.store.finish(task.benchmark, task.items, answers.values, scores)
    trainer.strategy.barrier()
    return scores


def _submit(task: Task) -> str:
    """Write the replies in the form of the benchmark's server; the file's path."""
    assert task.benchmark.submission is not None
    records, asked = task.store.records(), range(len(task.items))
    replies = [final_answer(records[n].reply)[0] if n in records and not records[n].cut else "" for n in asked]
    name, content = task.benchmark.submission(task.items.items, replies)
    scratch = task.store.folder / f".{name}.tmp"
    scratch.write_bytes(content)
    return str(scratch.replace(task.store.folder / name))


def _scores(task: Task, answers: Answers) -> dict[str, Any]:
    records = [record for _, record in sorted(task.store.records().items())]
    unread = [r for r in records if r.bad is not None]
    results = answers.results if task.items.scored else {task.benchmark.headline: float("nan")}
    if cut := sum(r.cut for r in records):
        results = {**results, "cut_in_reasoning": cut / (len(records) - len(unread))}
    skipped = [{"place": bad.place, "reason": bad.reason} for bad in task.items.bad]
    skipped += [{"place": task.items.places[r.position], "reason": str(r.bad)} for r in unread]
    return {
        "benchmark": task.benchmark.name,
        "about": task.benchmark.about,
        **task.about,
        "headline": task.benchmark.headline,
        "results": {k: None if v != v else v for k, v in results.items()},
        "questions": len(task.items),
        "skipped": skipped,
        "notes": list(task.items.notes),
        "seconds": answers.seconds,
        "batch_size": task.way.batch_size,
        "inputs": task.store.inputs,
        **environment(),
    }
