"""Calibrate with samples of your own: pictures and conversations from wherever you keep them.

A sample is one conversation in the form of the processor's chat template, the assistant's answer included, and its
pictures (videos, sounds) in the order of the conversation. Samples are made on demand, so a large set need not fit in
memory. Files in LLaVA's json form need no code: `calibration: {source: llava_json, path: FILE}` in a recipe.
"""

from collections.abc import Sequence

from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from tamp_lightning import Method, PruneResult, prune
from tamp_lightning.data.calibration import CalibrationData, Sample, SampleList

Row = tuple[Image.Image, str, str]
"""A picture, a question and its answer."""


def calibration(rows: Sequence[Row], processor: ProcessorMixin, batch_size: int = 2) -> CalibrationData:
    """Batches of these rows."""

    def make(index: int) -> Sample:
        picture, question, answer = rows[index]
        asked = [{"type": "image"}, {"type": "text", "text": question}]
        told = [{"type": "text", "text": answer}]
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": told}]
        return Sample(index, messages, [picture])

    return CalibrationData.from_samples(SampleList(len(rows), make), processor, batch_size)


def prune_with(model: PreTrainedModel, processor: ProcessorMixin, rows: Sequence[Row]) -> PruneResult:
    """TAMP at 50 % on the pictures given; the model is pruned in place."""
    return prune(model, calibration(rows, processor), method=Method(), progress=False, accelerator="cpu")
