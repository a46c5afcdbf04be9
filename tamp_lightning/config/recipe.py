"""The typed recipe: what a YAML file may say, its defaults, and what each key means (shown by `--help`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from tamp_lightning.config.finetune import DistillSection, FinetuneData, LoraSection, Schedule
from tamp_lightning.errors import InputError
from tamp_lightning.methods.checks import check_at_least
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.towers import Towers


@dataclass(frozen=True)
class ModelChoice:
    """What is pruned."""

    checkpoint: str = "smol-llava-next"
    """A folder, a hub id, or a test bed: smol-llava-next or smol-videollama2 (language model frozen), smol-llava-next-2
    or smol-videollama2-2 (trained too)."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What to compute in; auto = the checkpoint's own. What is written always has the checkpoint's own."""
    include: list[str] = field(default_factory=list)
    """Regular expressions on full linear names; empty = every linear of the decoder blocks."""
    exclude: list[str] = field(default_factory=list)
    """Regular expressions on full linear names that stay dense."""


Source = Literal["easy_vqa", "easy_vqa_forms", "skills", "captions", "clips", "llava_json", "llava_next_data"]


@dataclass(frozen=True)
class CalibrationChoice:
    """The samples that statistics are taken from."""

    source: Source = "easy_vqa"
    """The test beds' calibration splits, captions of other pictures, a json or jsonl file of conversations (LLaVA, or
    `messages`) with its media, or LLaVA-NeXT-Data's parquet."""
    path: str | None = None
    """llava_json: the file. llava_next_data: hub id or folder of parquet files."""
    media: str | None = None
    """llava_json: folder of the pictures, videos and sounds; default: the file's own."""
    subset: str | None = None
    """llava_next_data: the data_source to take, such as sharegpt4v; default: all."""
    samples: int = 128
    """How many conversations."""
    turns: int = 4
    """easy_vqa, skills, clips: questions per conversation."""
    seed: int = 42
    """Seed of the draw."""
    batch_size: int = 8
    """Samples per batch; padding on the right never enters a statistic."""
    bad_rows: Literal["refuse", "skip"] = "refuse"
    """llava_json, llava_next_data: a row that is damaged, or whose media are missing or damaged, is an error, or is
    left out, counted and replaced by another."""
    drop_silence: bool = False
    """VideoLLaMA2: leave the silence that sounds are padded with out of the statistics as well."""

    def __post_init__(self) -> None:
        check_at_least(1, "calibration.", self, "samples", "turns", "batch_size")
        if self.source in ("llava_json", "llava_next_data") and self.path is None:
            raise InputError(f"calibration.source {self.source} needs calibration.path")


@dataclass(frozen=True)
class ScoreChoice:
    """What the dense and the pruned model are scored on."""

    benchmarks: list[str] | str = "easy_vqa"
    """Names such as [mmbench, pope], none, or a test bed's: easy_vqa (yes/no, shape, colour), easy_vqa_forms (the
    same in the benchmarks' wordings), skills (and six kinds about scenes of several things), clips."""
    data: dict[str, Any] = field(default_factory=dict)
    """Benchmark -> path, or a section with path, config, split, media, skip_bad, limit; default: its own on the hub."""
    limit: int | None = None
    """Only so many questions of each benchmark, evenly spread over it, with all rotations; default: all."""
    answers: Literal["generate", "likelihood"] = "generate"
    """Greedy replies, or the likeliest of each question's closed set of answers. The test beds' own: neither, they are
    read from the probabilities of given words."""
    prompt: Literal["protocol", "bare"] = "protocol"
    """The benchmark's own wording, or the question alone, for models that do not follow requests for a letter."""
    new_tokens: int | None = None
    """Longest reply in tokens; default: the benchmark's own."""
    thinking: bool = False
    """Whether a model reasons whose chat template can switch that off; it then needs more new_tokens."""
    frames: int = 8
    """Frames of a video, evenly spread."""
    frames_as_pictures: bool = False
    """Show a video as so many pictures, for models that take pictures only."""
    split: Literal["selection", "test"] = "test"
    """The test beds' own: report on test; choose between variants on selection."""
    slice: Literal["demo", "quick", "standard", "full"] = "quick"
    """easy_vqa: about 320 questions on 100 pictures, about 400 on 330, about 1,500, or all (not balanced); clips: 264,
    264, 1,056 or 2,640."""
    batch_size: int = 8
    """Pictures, or questions where replies are generated, per batch."""
    mode: Literal["whole", "layer_wise"] = "whole"
    """whole: the dense and the pruned model are loaded to be scored. layer_wise: pictures pass each block as it is
    pruned, for models larger than memory; when pruning only, and not where replies are generated."""

    @property
    def names(self) -> list[str]:
        """The benchmarks; empty for none."""
        given = [self.benchmarks] if isinstance(self.benchmarks, str) else self.benchmarks
        return [] if given == ["none"] else given

    @property
    def is_layerwise(self) -> bool:
        """Whether pictures are scored layer by layer."""
        return bool(self.names) and self.mode == "layer_wise"

    def __post_init__(self) -> None:
        check_at_least(1, "scores.", self, "batch_size", "limit", "frames", "new_tokens")


@dataclass(frozen=True)
class CacheChoice:
    """Where the hidden states of the calibration samples wait between two blocks."""

    limit_gb: float | None = None
    """GB of RAM for them (of each process); what goes beyond waits in mapped files under the run folder, with the same
    result. Default: no limit."""

    def __post_init__(self) -> None:
        check_at_least(0, "cache.", self, "limit_gb")


@dataclass(frozen=True)
class PruneRecipe:
    """Prune a checkpoint and score it before and after."""

    task: Literal["prune"] = "prune"
    """What the recipe does."""
    model: ModelChoice = field(default_factory=ModelChoice)
    method: Method = field(default_factory=Method)
    towers: Towers = field(default_factory=Towers)
    calibration: CalibrationChoice = field(default_factory=CalibrationChoice)
    scores: ScoreChoice = field(default_factory=ScoreChoice)
    cache: CacheChoice = field(default_factory=CacheChoice)
    seed: int = 0
    """Seed of everything but the draw of calibration samples."""
    out: str | None = None
    """Run folder; must be new, or hold a run of the same recipe that was killed, which then goes on where it was.
    Default: runs/<recipe>-<date>-<time>."""
    plugins: list[str] = field(default_factory=list)
    """Python files (by path) or modules that register choices of their own; their code runs: name only what you trust.
    """
    trainer: dict[str, Any] = field(default_factory=dict)
    """Arguments of lightning.Trainer, such as {accelerator: gpu}."""

    def __post_init__(self) -> None:
        if self.towers.on:
            self.towers.method(self.method)
        if self.scores.is_layerwise and (self.towers.on or self.method.mode == "one_shot"):
            what = "pruned towers" if self.towers.on else "mode: one_shot"
            raise InputError(f"scores.mode layer_wise does not go with {what}: set scores.mode: whole")


@dataclass(frozen=True)
class Grid:
    """Methods x sparsities x calibration seeds."""

    methods: list[str] = field(default_factory=list)
    """Names out of the recipe's `methods`."""
    sparsities: list[float] = field(default_factory=lambda: [0.5])
    """Instead of the methods' own."""
    seeds: list[int] = field(default_factory=lambda: [42])
    """Seeds of the calibration draw, instead of calibration.seed."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What to compute in; auto = model.dtype."""
    source: Source | None = None
    """Where calibration samples come from, instead of calibration.source: what a method owes to seeing the test's own
    kind of sample."""

    def __post_init__(self) -> None:
        for name in ("methods", "sparsities", "seeds"):
            if not getattr(self, name):
                raise InputError(f"{name} of a grid is empty; it has to name at least one")


@dataclass(frozen=True)
class CompareRecipe:
    """Prune one checkpoint in many ways and score all on the same questions. A stopped comparison goes on."""

    task: Literal["compare"] = "compare"
    """What the recipe does."""
    model: ModelChoice = field(default_factory=ModelChoice)
    methods: dict[str, Method] = field(default_factory=dict)
    """Name -> a section as `method` in a prune recipe."""
    grids: list[Grid] = field(default_factory=list)
    """What to run; earlier ones first, and in each the first seed of everything first."""
    reference: str = "wanda"
    """The method that all others are compared with, question by question."""
    calibration: CalibrationChoice = field(default_factory=CalibrationChoice)
    scores: ScoreChoice = field(default_factory=ScoreChoice)
    seed: int = 0
    """Seed of everything but the draw of calibration samples."""
    keep_models: bool = False
    """Keep the pruned checkpoints, not only what is said about them."""
    summary_only: bool = False
    """Run nothing: only say what the cells show that are finished."""
    out: str | None = None
    """Folder, shared by stopped and later runs. Default: runs/compare."""
    plugins: list[str] = field(default_factory=list)
    """Python files (by path) or modules that register choices of their own; their code runs: name only what you trust.
    """
    trainer: dict[str, Any] = field(default_factory=dict)
    """Arguments of lightning.Trainer."""

    def __post_init__(self) -> None:
        if not self.grids:
            raise InputError("grids is empty; it has to hold at least one")
        if not self.scores.names:
            raise InputError("scores.benchmarks is none; a comparison needs scores")
        named = [("reference", self.reference)]
        named += [(f"grids[{k}].methods", name) for k, grid in enumerate(self.grids) for name in grid.methods]
        for key, name in named:
            if name not in self.methods:
                near = get_close_matches(name, self.methods, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise InputError(f"{key} names {name!r}, which is not among methods ({', '.join(self.methods)}){hint}")


@dataclass(frozen=True)
class EvaluateRecipe:
    """Score a checkpoint on benchmarks. What was scored before with the same inputs is not scored again."""

    task: Literal["evaluate"] = "evaluate"
    """What the recipe does."""
    model: ModelChoice = field(default_factory=ModelChoice)
    benchmarks: list[str] = field(default_factory=lambda: ["easy_vqa"])
    """Names, such as mmbench or pope; the test beds' own are asked beside their `controls`. Where the keys of this
    recipe and of its `scores` have one name, this one counts."""
    data: dict[str, Any] = field(default_factory=dict)
    """Benchmark -> path, or a section with path, config, split, media, skip_bad, limit; default: its own on the hub."""
    answers: Literal["generate", "likelihood"] = "generate"
    """Greedy replies, or the likeliest of each question's closed set of answers."""
    prompt: Literal["protocol", "bare"] = "protocol"
    """The benchmark's own wording, or the question alone, for models that do not follow requests for a letter."""
    new_tokens: int | None = None
    """Longest reply in tokens; default: the benchmark's own."""
    thinking: bool = False
    """Whether a model reasons whose chat template can switch that off; it then needs more new_tokens. Reasoning is kept
    in predictions.parquet and taken off before a reply is scored, in any case."""
    batch_size: int = 8
    """Questions per batch."""
    frames: int = 8
    """Frames of a video, evenly spread."""
    frames_as_pictures: bool = False
    """Show a video as so many pictures, for models that take pictures only."""
    reference: str | None = None
    """A checkpoint to compare with, such as the dense one: both are scored, and report.html says what differs."""
    scores: ScoreChoice = field(default_factory=ScoreChoice)
    """split, slice and batch_size of the test beds' own; limit of all others."""
    controls: list[Literal["shuffled", "muted", "blank", "unseen", "letters"]] = field(
        default_factory=lambda: ["shuffled", "blank"]
    )
    """easy_vqa, skills, clips: rows beside the model's own: another picture or clip, a grey one, no sound (clips), a
    wording that was not trained (skills, easy_vqa_forms), four options with letters (easy_vqa_forms)."""
    out: str | None = None
    """Folder for predictions and scores, shared by checkpoints. Default: runs/evaluate."""
    plugins: list[str] = field(default_factory=list)
    """Python files (by path) or modules that register choices of their own; their code runs: name only what you trust.
    """
    trainer: dict[str, Any] = field(default_factory=dict)
    """Arguments of lightning.Trainer."""

    @property
    def asked(self) -> ScoreChoice:
        """All that is said about scoring, as in the other recipes."""
        own: dict[str, Any] = {
            name: getattr(self, name) for name in ("benchmarks", "data", "answers", "prompt", "new_tokens", "thinking")
        }
        return replace(self.scores, **own, frames=self.frames, frames_as_pictures=self.frames_as_pictures)

    def __post_init__(self) -> None:
        check_at_least(1, "", self, "batch_size", "frames", "new_tokens")


SHORTEST_CYCLE = 20
"""Fewest steps of a one-cycle schedule whose first tenth is a warm-up."""


@dataclass(frozen=True)
class Stage:
    """Length and speed of one training stage."""

    steps: int = 1000
    """Optimiser steps."""
    cycle: int | None = None
    """Steps of the one-cycle learning rate; longer than `steps` stops before the cycle ends. Default: steps."""
    pictures: int = 64
    """Pictures, or clips, per step."""
    questions: int = 8
    """Questions per picture or clip (packed; the warm-up has none)."""
    tower_lr: float = 1e-3
    """Peak learning rate of the vision tower."""
    projector_lr: float = 1e-3
    """Peak learning rate of the projector and the newline embedding."""
    language_lr: float = 1e-3
    """Peak learning rate of the language model, where it is trained."""
    log_every: int = 20
    """Steps between log lines."""

    def __post_init__(self) -> None:
        for name in ("steps", "pictures", "questions", "log_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} of a training stage is {getattr(self, name)}; it has to be at least 1")
        length = self.steps if self.cycle is None else self.cycle
        if length < max(self.steps, SHORTEST_CYCLE):
            raise InputError(f"cycle of a training stage is {length}; it has to be at least {SHORTEST_CYCLE} and steps")


@dataclass(frozen=True)
class TrainBedRecipe:
    """Train the towers and projectors of a test bed."""

    task: Literal["train_bed"] = "train_bed"
    """What the recipe does."""
    bed: Literal["smol-llava-next", "smol-llava-next-2", "smol-videollama2", "smol-videollama2-2"] = "smol-llava-next"
    """Which one."""
    warmup: Stage = field(default_factory=Stage)
    """First: the tower on labelled pictures (second editions begin with the first edition's instead)."""
    align: Stage = field(default_factory=Stage)
    """Then: tower and projector through the language model, which is frozen but in second editions."""
    clips: int = 2304
    """smol-videollama2 and -2: how many different clips to train on; each takes 300 KB."""
    easy: float = 1.0
    """smol-llava-next-2: share of easy-VQA's pictures; the others are scenes of several things."""
    rank: int = 32
    """Second editions: all of the language model is trained, and its difference shipped at this rank in 8 bits."""
    named: int = 0
    """smol-llava-next-2: pictures per step whose contents the tower learns to name, beside those with questions; what
    scenes show it has to learn this way."""
    begin: str | None = None
    """Second editions: a progress.safetensors of its own to go on from, with new pictures where the seed is new.
    Default: the first edition's towers and the language model as it is."""
    seed: int = 0
    """Seed of initialisation; batches are numbered and do not depend on it (smol-llava-next-2: numbered from it)."""
    out: str | None = None
    """Folder for towers.safetensors and card.json; must not hold them yet. Default: the bed's in data/."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Arguments of lightning.Trainer for both stages."""

    @property
    def folder(self) -> Path:
        """Where the bed goes."""
        return Path(self.out or f"data/{self.bed.replace('-', '_')}")


@dataclass(frozen=True)
class FinetuneRecipe:
    """Train the surviving weights of a pruned model; what is zero stays zero."""

    task: Literal["finetune"] = "finetune"
    """What the recipe does."""
    checkpoint: str | None = None
    """A run folder, whose masks are used, or a sparse checkpoint (folder or hub id), whose zeros are the masks."""
    mode: Literal["full", "lora", "distill"] = "full"
    """Every surviving weight, a masked low-rank update merged at the end, or every surviving weight with a teacher."""
    train: Literal["blocks", "decoder", "all"] = "blocks"
    """What is trained: the decoder blocks, the language model, or towers and projectors too. lora: blocks only."""
    schedule: Schedule = field(default_factory=Schedule)
    lora: LoraSection = field(default_factory=LoraSection)
    distill: DistillSection = field(default_factory=DistillSection)
    data: FinetuneData = field(default_factory=FinetuneData)
    scores: ScoreChoice = field(default_factory=ScoreChoice)
    allow_dense: bool = False
    """Accept a checkpoint with nothing pruned, as a control with the same budget."""
    log: Literal["csv", "tensorboard", "none"] = "csv"
    """Where losses go: logs/metrics.csv of the run folder, TensorBoard's files there, or nowhere."""
    resume: bool = False
    """Go on after the last checkpoint of the run folder `out`, which an interrupted run of the same recipe left."""
    seed: int = 0
    """Seed of lora's initialisation and of dropout, if the model has any."""
    out: str | None = None
    """Run folder; must be new. Default: runs/<recipe>-<date>-<time>."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Arguments of lightning.Trainer, such as {accumulate_grad_batches: 4}."""

    def __post_init__(self) -> None:
        if self.mode == "lora" and self.train != "blocks":
            raise InputError(f"train is {self.train!r}; mode lora trains updates of the pruned linears: use blocks")


RECIPES = {
    "prune": PruneRecipe,
    "compare": CompareRecipe,
    "evaluate": EvaluateRecipe,
    "train_bed": TrainBedRecipe,
    "finetune": FinetuneRecipe,
}
