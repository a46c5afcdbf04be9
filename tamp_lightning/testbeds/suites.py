"""The test beds' own questions, by name."""

from __future__ import annotations

from typing import Any, Literal

from transformers import ProcessorMixin

from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.packed import PackedTask
from tamp_lightning.testbeds.clip_suite import ClipSuite
from tamp_lightning.testbeds.easy_vqa_suite import EasyVqaSuite
from tamp_lightning.testbeds.skills import FormSuite, SkillSuite

Shown = Literal["own", "shuffled", "muted", "blank", "unseen", "letters"]
SUITES: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "easy_vqa": (EasyVqaSuite, "LlavaNextProcessor", ("own", "shuffled", "blank")),
    "easy_vqa_forms": (FormSuite, "LlavaNextProcessor", ("own", "shuffled", "blank", "unseen", "letters")),
    "skills": (SkillSuite, "LlavaNextProcessor", ("own", "shuffled", "blank", "unseen")),
    "clips": (ClipSuite, "Videollama2Processor", ("own", "shuffled", "muted", "blank")),
}
"""Name -> suite, the processor it is made for, and what can be shown."""


def build_suite(
    name: str,
    processor: ProcessorMixin,
    split: Literal["selection", "test"],
    size: Literal["demo", "quick", "standard", "full"],
    shown: Shown = "own",
) -> PackedTask | None:
    """The suite a recipe asks for; None for "none".

    Raises:
        InputError: the checkpoint's processor is another than the questions are made for, or the control is none of
            theirs.
        FileNotFoundError: the data are not installed.
    """
    if name == "none":
        return None
    suite, wanted, controls = SUITES[name]
    if (found := type(processor).__name__) != wanted:
        raise InputError(f"{name} needs a checkpoint with a {wanted}, this one has {found}: choose none")
    if shown not in controls:
        raise InputError(f"controls has {shown!r}, {name} has {', '.join(controls[1:])}")
    return suite(processor, split, size, shown)
