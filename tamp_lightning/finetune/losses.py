"""What is made small in finetuning: the loss on answer tokens, and the distance to a dense teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from tamp_lightning.config.finetune import DistillSection
from tamp_lightning.data.packing import IGNORE

EXTRAS = ("labels", "segments", "answers", "valid", "sample_ids")
"""What a batch has beside the model's inputs."""


def answer_logits(model: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits [tokens,vocab] where a label stands, and the labels [tokens]; the head runs nowhere else."""
    inputs = {key: value for key, value in batch.items() if key not in EXTRAS}
    hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
    wanted = batch["labels"] != IGNORE
    return model.get_output_embeddings()(hidden[wanted]), batch["labels"][wanted]


def distillation(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(teacher || student) of distributions softened by T, mean over tokens (Hinton et al., 1503.02531).

    Args:
        student: logits [tokens,vocab].
        teacher: logits [tokens,vocab].
        temperature: T.
    """
    ours, theirs = ((logits.float() / temperature).log_softmax(-1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(ours, theirs, log_target=True, reduction="batchmean")


def block_error(student: Sequence[Tensor], teacher: Sequence[Tensor], valid: Tensor) -> Tensor:
    """Squared distance between block outputs over the teacher's squared length, mean over blocks.

    Args:
        student: per block [B,n,d].
        teacher: per block [B,n,d].
        valid: [B,n] bool; padding does not count.
    """
    pairs = [(s[valid].float(), t[valid].float()) for s, t in zip(student, teacher, strict=True)]
    return torch.stack([(s - t).square().sum() / t.square().sum() for s, t in pairs]).mean()


@contextmanager
def block_outputs(model: nn.Module, blocks: str) -> Iterator[list[Tensor]]:
    """Collect what every decoder block returns in the forward pass inside."""
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    hooks = [block.register_forward_hook(keep) for block in model.get_submodule(blocks).children()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


class Answers:
    """Cross-entropy on the answers' tokens."""

    def __call__(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`loss` and `answers`, which are the same here."""
        logits, labels = answer_logits(model, batch)
        loss = F.cross_entropy(logits.float(), labels)
        return {"loss": loss, "answers": loss.detach()}


class Distillation:
    """Distance to a teacher on answer tokens, and, if wanted, of block outputs.

    The teacher is no module of the trainer's: it is neither moved, wrapped, converted nor written to a checkpoint.

    Args:
        teacher: the dense model; it is frozen.
        blocks: path of the decoder blocks, the same in both models.
        section: weights of the parts of the loss.
    """

    def __init__(self, teacher: PreTrainedModel, blocks: str, section: DistillSection) -> None:
        self.teacher, self.blocks, self.section = teacher.eval().requires_grad_(False), blocks, section

    def __call__(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`loss`, and its parts `kl`, `answers` and `blocks` where they are asked for."""
        if self.teacher.device != batch["input_ids"].device:
            nn.Module.to(self.teacher, batch["input_ids"].device)
        with torch.no_grad(), block_outputs(self.teacher, self.blocks) as dense:
            wanted, _ = answer_logits(self.teacher, batch)
        with block_outputs(model, self.blocks) as sparse:
            logits, labels = answer_logits(model, batch)
        parts = {"kl": distillation(logits, wanted, self.section.temperature)}
        parts["answers"] = F.cross_entropy(logits.float(), labels)
        loss = parts["kl"] + self.section.answers * parts["answers"]
        if self.section.blocks:
            parts["blocks"] = block_error(sparse, dense, batch["valid"])
            loss = loss + self.section.blocks * parts["blocks"]
        return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}
