"""The benchmarks that a recipe names, as tasks to be scored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import ProcessorMixin

from tamp_lightning.benchmarks.registry import BEDS, BENCHMARKS, check_names, question_alone
from tamp_lightning.benchmarks.submissions import check_submission
from tamp_lightning.config.recipe import ScoreChoice
from tamp_lightning.data.readers.item import Source
from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.examples import check_accepts
from tamp_lightning.evaluation.generate import GenerationTask
from tamp_lightning.evaluation.items import GenerationOptions, ItemTask, spread
from tamp_lightning.evaluation.likelihood import LikelihoodTask, check_likelihood
from tamp_lightning.evaluation.packed import PackedTask
from tamp_lightning.evaluation.task import Task
from tamp_lightning.tasks.benchmark_sources import sources_of
from tamp_lightning.testbeds.suites import build_suite

Say = Callable[[str], Any]


def build_tasks(choice: ScoreChoice, processor: ProcessorMixin, say: Say = lambda line: None) -> list[Task]:
    """Every benchmark of a `scores` section, its questions read; empty for none.

    Args:
        choice: the section.
        processor: of the checkpoint.
        say: takes a line on each data set that is downloaded.

    Raises:
        InputError, FileNotFoundError: an unknown name or key, or data that are not what they should be.
    """
    if not choice.names and choice.benchmarks != []:
        return []
    check_names(choice.names)
    public = [name for name in choice.names if name not in BEDS]
    if choice.mode == "layer_wise" and public and choice.answers == "generate":
        raise InputError(
            f"scores.mode is layer_wise, and replies to {public[0]} are generated, which takes a whole model: set "
            "scores.mode: whole, or scores.answers: likelihood"
        )
    sources = sources_of(public, choice.data, say)
    return [
        _public(name, sources[name], choice, processor) if name in sources else _bed(name, choice, processor)
        for name in choice.names
    ]


def scored_tasks(choice: ScoreChoice, processor: ProcessorMixin, say: Say = lambda line: None) -> list[Task]:
    """The same, with right answers for every question.

    Raises:
        InputError, FileNotFoundError: as above, or a benchmark's answers are not known here.
    """
    tasks = build_tasks(choice, processor, say)
    for task in tasks:
        if isinstance(task, ItemTask) and not task.items.scored:
            raise InputError(f"{task.name}: split {task.split} has no answers to score by: choose another")
    return tasks


def _bed(name: str, choice: ScoreChoice, processor: ProcessorMixin) -> PackedTask:
    suite = build_suite(name, processor, choice.split, choice.slice)
    assert suite is not None
    return suite


def _public(name: str, source: Source, choice: ScoreChoice, processor: ProcessorMixin) -> ItemTask:
    benchmark = BENCHMARKS[name] if choice.prompt == "protocol" else question_alone(BENCHMARKS[name])
    items = spread(benchmark.read(source), choice.limit)
    options = GenerationOptions(
        choice.prompt, choice.new_tokens, choice.frames, choice.frames_as_pictures, source.skip_bad, choice.thinking
    )
    if not items.scored:
        check_submission(name, benchmark.submission)
    check_accepts(benchmark, items, processor, options.frames_as_pictures)
    if choice.answers == "likelihood":
        check_likelihood(benchmark, items, processor)
        return LikelihoodTask(benchmark, items, processor, options, str(source.split or ""))
    return GenerationTask(benchmark, items, processor, options, str(source.split or ""))
