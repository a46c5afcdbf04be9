"""The calibration samples that a recipe names."""

from __future__ import annotations

from pathlib import Path

from transformers import ProcessorMixin

from tamp_lightning.config.recipe import CalibrationChoice
from tamp_lightning.data import sources
from tamp_lightning.data.calibration import CalibrationData, SampleList
from tamp_lightning.data.draw import Pool
from tamp_lightning.testbeds.clip_samples import clip_pool
from tamp_lightning.testbeds.skill_samples import caption_pool, skill_pool


def calibration_data(choice: CalibrationChoice, processor: ProcessorMixin) -> tuple[SampleList, CalibrationData]:
    """The samples a recipe asks for, and their batches.

    Raises:
        InputError, FileNotFoundError: see `calibration_samples`.
    """
    samples = calibration_samples(choice, processor)
    return samples, CalibrationData.from_samples(samples, processor, choice.batch_size, choice.drop_silence)


def calibration_samples(choice: CalibrationChoice, processor: ProcessorMixin) -> SampleList:
    """The samples a recipe asks for.

    Raises:
        InputError: there are too few, or a file is not what it should be.
        FileNotFoundError: easy-VQA is not installed.
    """
    path = str(choice.path)
    if choice.source == "llava_json":
        media = Path(choice.media) if choice.media else None
        return sources.from_llava_json(Path(path), media, choice.samples, choice.seed, processor, choice.bad_rows)
    if choice.source == "llava_next_data":
        return sources.from_llava_next_data(path, choice.subset, choice.samples, choice.seed, bad_rows=choice.bad_rows)
    return _bed_pool(choice.source, choice.seed, choice.turns).draw(choice.samples, choice.seed)


def _bed_pool(source: str, seed: int, turns: int) -> Pool:
    """What a test bed has for calibration."""
    if source == "easy_vqa":
        return sources.easy_vqa_pool(seed, turns)
    if source == "captions":
        return caption_pool()
    return clip_pool(seed, turns) if source == "clips" else skill_pool(seed, turns, scenes=source == "skills")
