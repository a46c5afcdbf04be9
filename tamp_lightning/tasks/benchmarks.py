"""The benchmarks that a recipe names, as tasks to be scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from transformers import ProcessorMixin

from tamp_lightning.benchmarks.registry import BEDS, BENCHMARKS, check_names, question_alone
from tamp_lightning.benchmarks.submissions import check_submission
from tamp_lightning.config.recipe import ScoreChoice
from tamp_lightning.data.readers.item import Source
from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.examples import check_accepts
from tamp_lightning.evaluation.generate import GenerationTask
from tamp_lightning.evaluation.items import ItemTask, Way, spread
from tamp_lightning.evaluation.likelihood import LikelihoodTask, check_likelihood
from tamp_lightning.evaluation.packed import PackedTask
from tamp_lightning.evaluation.task import Task
from tamp_lightning.resources import cache_folder
from tamp_lightning.testbeds import clip_layouts, easy_vqa_layouts, skill_layouts
from tamp_lightning.testbeds.suites import build_suite

Say = Callable[[str], Any]
LAYOUTS = {layouts.NAME: layouts for layouts in (easy_vqa_layouts, skill_layouts, clip_layouts)}
"""The test beds' questions, written as files of public benchmarks."""


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
    check_data(choice.data)
    sources = {name: source_of(name, choice.data) for name in choice.names if name not in BEDS}
    if choice.mode == "layer_wise" and sources and choice.answers == "generate":
        raise InputError(
            f"scores.mode is layer_wise, and replies to {next(iter(sources))} are generated, which takes a whole "
            "model: set scores.mode: whole, or scores.answers: likelihood"
        )
    for name, source in sources.items():
        if (line := download_line(name, source)) is not None:
            say(line)
    return [
        _public(name, sources[name], choice, processor) if name in sources else _bed(name, choice, processor)
        for name in choice.names
    ]


def _bed(name: str, choice: ScoreChoice, processor: ProcessorMixin) -> PackedTask:
    suite = build_suite(name, processor, choice.split, choice.slice)
    assert suite is not None
    return suite


def _public(name: str, source: Source, choice: ScoreChoice, processor: ProcessorMixin) -> ItemTask:
    benchmark = BENCHMARKS[name] if choice.prompt == "protocol" else question_alone(BENCHMARKS[name])
    items = spread(benchmark.read(source), choice.limit)
    way = Way(
        choice.prompt, choice.new_tokens, choice.frames, choice.frames_as_pictures, source.skip_bad, choice.thinking
    )
    if not items.scored:
        check_submission(name, benchmark.submission)
    check_accepts(benchmark, items, processor, way.frames_as_pictures)
    if choice.answers == "likelihood":
        check_likelihood(benchmark, items, processor)
        return LikelihoodTask(benchmark, items, processor, way, str(source.split or ""))
    return GenerationTask(benchmark, items, processor, way, str(source.split or ""))


def check_answers(tasks: Sequence[Task]) -> None:
    """Refuse benchmarks whose right answers are not known.

    Raises:
        InputError: names the benchmark.
    """
    for task in tasks:
        if isinstance(task, ItemTask) and not task.items.scored:
            raise InputError(f"{task.name}: split {task.split} has no answers to score by: choose another")


def download_line(name: str, source: Source) -> str | None:
    """What is fetched for a benchmark from where, and how to do without; None where the data are local."""
    if source.path is None or Path(source.path).exists() or source.path.startswith((".", "/")):
        return None
    part = ", ".join(part for part in (source.config, source.split) if part)
    return (
        f"{name}: {source.path} ({part}) is read from the hub, and downloaded once; "
        f"data.{name}=FILE_OR_FOLDER reads it from there"
    )


def check_data(data: Mapping[str, Any]) -> None:
    """Refuse a data section for what is no benchmark; one that is not scored this time may stay.

    Raises:
        InputError: names it and the nearest.
    """
    for name in data:
        if name not in BENCHMARKS:
            near = get_close_matches(name, BENCHMARKS, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise InputError(f"data has {name!r}, expected {', '.join(BENCHMARKS)}{hint}")


def source_of(name: str, data: Mapping[str, Any]) -> Source:
    """Where the data of a benchmark are: the recipe's word over the benchmark's own.

    Raises:
        InputError: unknown key, or no place at all.
        FileNotFoundError: easy-VQA is wanted and not installed.
    """
    given = data.get(name, {})
    given = {"path": given} if isinstance(given, str) else given
    known = [f.name for f in fields(Source)]
    if not isinstance(given, dict) or not given.keys() <= set(known):
        raise InputError(f"data.{name} is {given!r}, expected a path or a section with {', '.join(known)}")
    default = BENCHMARKS[name].source
    if given.get("path") in LAYOUTS:
        layouts = LAYOUTS[given["path"]]
        default = layouts.write(name, cache_folder() / f"{layouts.NAME.replace('-', '_')}_layouts")
        given = {key: value for key, value in given.items() if key != "path"}
    source = replace(default, **given)
    if source.path is None:
        raise InputError(f"{name} has no data on the hub that we know of: give data.{name}.path and data.{name}.media")
    return source
