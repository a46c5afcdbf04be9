"""Score one checkpoint on benchmarks: those of public formats, and the test beds' own beside controls."""

from __future__ import annotations

from dataclasses import fields, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from transformers import AutoConfig, AutoProcessor, PreTrainedModel, ProcessorMixin

from tamp_lightning.benchmarks.registry import BEDS, BENCHMARKS, check_names, question_alone
from tamp_lightning.benchmarks.submissions import check_submission
from tamp_lightning.config.recipe import EvaluateRecipe
from tamp_lightning.data.readers.item import Source
from tamp_lightning.data.readers.tables import sha256_of
from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.benchmarks import Task, run_task
from tamp_lightning.evaluation.examples import check_accepts
from tamp_lightning.evaluation.generate import Way
from tamp_lightning.evaluation.likelihood import check_likelihood
from tamp_lightning.evaluation.predictions import Store, questions_digest, write_json
from tamp_lightning.evaluation.reasoning import template_options
from tamp_lightning.evaluation.scoring import score
from tamp_lightning.passes.trainer import scoring_trainer
from tamp_lightning.reporting.benchmarks import figure_table, score_table, write_results
from tamp_lightning.reporting.table import control_table
from tamp_lightning.resources import cache_folder
from tamp_lightning.runs.environment import compute_dtype
from tamp_lightning.tasks.prune import load_whole
from tamp_lightning.testbeds import easy_vqa_layouts
from tamp_lightning.testbeds.checkpoints import resolve
from tamp_lightning.testbeds.clip_suite import Shown
from tamp_lightning.testbeds.suites import build_suite

OUT = "runs/evaluate"
# raised when a change of ours changes predictions for equal inputs
REVISION = 1
HASH_LENGTH = 8


def run_evaluate(recipe: EvaluateRecipe, console: Console) -> list[dict[str, Any]]:
    """Do what an evaluate recipe says; contents of the scores.json files, in the order of the recipe.

    What was scored before with the same inputs is not scored again; what was begun goes on.

    Raises:
        InputError, FileNotFoundError: bad input, before a weight is read (but for media that only decoding finds bad).
    """
    check_names(recipe.benchmarks)
    if recipe.scores.mode != "whole":
        raise InputError(f"scores.mode is {recipe.scores.mode}, which is for task prune: set scores.mode: whole")
    sources = {name: source_of(name, recipe.data) for name in recipe.benchmarks if name not in BEDS}
    check_data(recipe)
    folder = resolve(recipe.model.checkpoint)
    processor = load_processor(folder)
    trainer = scoring_trainer(**recipe.trainer)
    checkpoint = checkpoint_sha256(folder)
    place = Path(recipe.out or OUT) / f"{Path(recipe.model.checkpoint).name}-{checkpoint[:HASH_LENGTH]}"
    device = trainer.strategy.root_device
    tasks = [
        _task(recipe, name, source, processor, folder, checkpoint, place, device) for name, source in sources.items()
    ]

    @cache
    def model() -> PreTrainedModel:
        return load_whole(folder, compute_dtype(recipe.model.dtype, device))

    scores = [run_task(task, model, processor, trainer) for task in tasks]
    if trainer.is_global_zero:
        _report(scores, place.parent, console)
    for name in (name for name in BEDS if name in recipe.benchmarks):
        _bed(name, recipe, model(), processor, trainer, place, console)
    return scores


def load_processor(folder: Path) -> ProcessorMixin:
    """The processor of a checkpoint.

    Raises:
        InputError: there is none, or it has no chat template.
    """
    try:
        processor = AutoProcessor.from_pretrained(folder)
    except (ValueError, OSError) as error:
        raise InputError(f"{folder} holds no processor: {str(error).splitlines()[0]}") from None
    if not isinstance(processor, ProcessorMixin) or processor.chat_template is None:
        kind = type(processor).__name__
        raise InputError(f"{folder} holds a {kind} without a chat template: add chat_template.jinja to the checkpoint")
    return processor


def check_data(recipe: EvaluateRecipe) -> None:
    """Refuse a data section for what is no benchmark; one that is not scored this time may stay.

    Raises:
        InputError: names it and the nearest.
    """
    for name in recipe.data:
        if name not in BENCHMARKS:
            near = get_close_matches(name, BENCHMARKS, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise InputError(f"data has {name!r}, expected {', '.join(BENCHMARKS)}{hint}")


def source_of(name: str, data: dict[str, Any]) -> Source:
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
    if given.get("path") == easy_vqa_layouts.NAME:
        default = easy_vqa_layouts.write(name, cache_folder() / "easy_vqa_layouts")
        given = {key: value for key, value in given.items() if key != "path"}
    source = replace(default, **given)
    if source.path is None:
        raise InputError(f"{name} has no data on the hub that we know of: give data.{name}.path and data.{name}.media")
    return source


def checkpoint_sha256(folder: Path) -> str:
    """Checksum over names and contents of a checkpoint's files.

    All bytes count: a pruned checkpoint differs from its dense one in nothing but its weights.
    """
    files = sorted(f for f in folder.rglob("*") if f.is_file() and not f.name.startswith("."))
    names = [f.relative_to(folder).as_posix() for f in files]
    return sha256_of(files) if names else ""


def _task(
    recipe: EvaluateRecipe,
    name: str,
    source: Source,
    processor: ProcessorMixin,
    folder: Path,
    checkpoint: str,
    place: Path,
    device: torch.device,
) -> Task:
    benchmark = BENCHMARKS[name] if recipe.prompt == "protocol" else question_alone(BENCHMARKS[name])
    items = benchmark.read(source)
    way = Way(
        likelihood=recipe.answers == "likelihood",
        new_tokens=recipe.new_tokens,
        batch_size=recipe.batch_size,
        frames=recipe.frames,
        frames_as_pictures=recipe.frames_as_pictures,
        skip_bad=source.skip_bad,
        thinking=recipe.thinking,
    )
    if not items.scored:
        check_submission(name, benchmark.submission)
    check_accepts(benchmark, items, processor, way.frames_as_pictures)
    if way.likelihood:
        check_likelihood(benchmark, items, processor)
    asks_video = any(media.kind == "video" for item in items.items for media in item.media)
    inputs = {
        "revision": REVISION,
        "benchmark": name,
        "checkpoint": checkpoint,
        "questions": questions_digest(benchmark, items),
        "answers": recipe.answers,
        "prompt": recipe.prompt,
        "new_tokens": None if way.likelihood else recipe.new_tokens or benchmark.new_tokens,
        "dtype": _dtype(recipe, folder, device),
        "frames": [way.frames, way.frames_as_pictures] if asks_video else None,
        "skip_bad": source.skip_bad,
        **template_options(processor, way.thinking),
    }
    about = {"checkpoint": recipe.model.checkpoint, "answers": recipe.answers, "prompt": recipe.prompt}
    return Task(benchmark, items, Store(place, name, inputs), way, about)


def _dtype(recipe: EvaluateRecipe, folder: Path, device: torch.device) -> str:
    wanted = compute_dtype(recipe.model.dtype, device) or AutoConfig.from_pretrained(folder).dtype
    return str(wanted).removeprefix("torch.")


def _report(scores: list[dict[str, Any]], out: Path, console: Console) -> None:
    if not scores:
        return
    write_results(out)
    console.print(score_table(scores))
    console.print(figure_table(scores))
    for row in scores:
        for note in row.get("notes", []):
            console.print(f"{row['benchmark']}: {note}", soft_wrap=True)
        if "submission" in row:
            text = f"{row['benchmark']} has no answers here and is not scored; for its server: {row['submission']}"
            console.print(text, soft_wrap=True)
    console.print(f"predictions and scores: [bold]{out}[/bold]", soft_wrap=True)


def _bed(
    name: str,
    recipe: EvaluateRecipe,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    trainer: L.Trainer,
    place: Path,
    console: Console,
) -> None:
    """Score a test bed's packed suite with its own pictures or clips and with each control."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    kinds: list[Shown] = ["own", *recipe.controls]
    for kind in kinds:
        shown = build_suite(name, processor, recipe.scores.split, recipe.scores.slice, kind)
        assert shown is not None
        suite = shown
        rows[kind] = score(model, suite, trainer, batch_size=recipe.scores.batch_size).results
    if not trainer.is_global_zero:
        return
    floor = suite.floor()
    console.print(control_table(rows, floor))
    if recipe.out:
        place.mkdir(parents=True, exist_ok=True)
        content = {**rows, "floor": floor, "questions": len(suite.right), "split": suite.split}
        write_json(place / f"{name}_{suite.split}_{recipe.scores.slice}.json", content)
