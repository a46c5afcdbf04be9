"""Calibration samples: conversations with their pictures, batched for the model, padding marked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from transformers import ProcessorMixin

from tamp_lightning.errors import InputError

Messages = list[dict[str, Any]]
MEDIA = ("images", "videos", "audio")


@dataclass(frozen=True)
class Sample:
    """One conversation, the assistant's last answer included."""

    id: int
    """Position in its data set."""
    messages: Messages
    """In the form of a chat template: roles, and contents of type text or image."""
    images: list[Image.Image]
    """One per image part of the messages, in order; empty for text alone."""
    videos: list[Any] = field(default_factory=list)
    """One per video part, in a form that the processor takes."""
    audio: list[Any] = field(default_factory=list)
    """One per audio part, in a form that the processor takes."""


class SampleList(Dataset[Sample]):
    """Samples made on demand by a function of their position."""

    def __init__(self, length: int, make: Callable[[int], Sample]) -> None:
        self.length, self.make = length, make

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        return self.make(index)


def right_padded(mask: Tensor) -> Tensor:
    """Validity [B,n] bool of an attention mask.

    Raises:
        InputError: a row has padding anywhere but at its end, or no token at all.
    """
    valid = mask.bool()
    if not torch.equal(valid, valid.long().cummin(1).values.bool()) or not bool(valid[:, 0].all()):
        raise InputError("attention_mask has padding before tokens: pad on the right (padding_side='right')")
    return valid


def calibration_batch(inputs: Mapping[str, Tensor], ids: Sequence[int]) -> dict[str, Tensor]:
    """Model inputs plus `sample_ids` [B] and `valid` [B,n]; the attention mask is left out.

    Behind a causal decoder no token sees padding on its right, so the mask changes no valid token's hidden state,
    and without it attention runs its fastest kernel and nothing of size n x n is stored.

    Raises:
        InputError: the padding is not on the right.
    """
    batch = {k: v for k, v in inputs.items() if isinstance(v, Tensor)}
    mask = batch.pop("attention_mask", None)
    valid = right_padded(torch.ones_like(batch["input_ids"]) if mask is None else mask)
    return {**batch, "sample_ids": torch.tensor(list(ids)), "valid": valid}


class Collator:
    """Runs samples through the chat template and the processor; samples with and without media may be mixed.

    Args:
        processor: the model's.
        drop_silence: mark the silence behind sounds as `ignored` [B,n]: attended to, but left out of statistics.
        prompt: end with the words that open the assistant's next turn.

    Raises:
        InputError: silence is to be dropped, and the processor cannot tell which tokens are silent.
    """

    def __init__(self, processor: ProcessorMixin, drop_silence: bool = False, prompt: bool = False) -> None:
        self.processor, self.drop_silence = processor, drop_silence
        self.options: dict[str, Any] = {"add_generation_prompt": True} if prompt else {}
        self._silent: Callable[[Mapping[str, Tensor]], Tensor] | None = getattr(processor, "silent_tokens", None)
        if drop_silence and self._silent is None:
            name = type(processor).__name__
            raise InputError(f"calibration.drop_silence is true, but {name} cannot tell silent tokens: leave it out")

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """One right-padded calibration batch."""
        texts = [self.processor.apply_chat_template(s.messages, **self.options) for s in samples]
        media = {kind: [item for s in samples for item in getattr(s, kind)] for kind in MEDIA}
        inputs = self.processor(
            text=texts,
            **self._accepted({kind: items for kind, items in media.items() if items}),
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        batch = calibration_batch(inputs, [s.id for s in samples])
        return {**batch, "ignored": self._silent(batch)} if self.drop_silence and self._silent else batch

    def _accepted(self, media: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """The same media, if the processor takes such.

        Raises:
            InputError: it does not.
        """
        taken = inspect.signature(self.processor.__call__).parameters
        for kind in media:
            if kind not in taken and not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
                raise InputError(
                    f"calibration samples have {kind}, which {type(self.processor).__name__} does not take"
                )
        return media


class CalibrationData(L.LightningDataModule):
    """Samples in the epoch that starts a walk, nothing but batch numbers in all others (hidden states are cached)."""

    def __init__(self, loader: DataLoader) -> None:
        super().__init__()
        self.loader = loader

    @classmethod
    def from_samples(
        cls, samples: SampleList, processor: ProcessorMixin, batch_size: int, drop_silence: bool = False
    ) -> CalibrationData:
        """Batches of `batch_size` samples in the order given; see `Collator`."""
        collator = Collator(processor, drop_silence)
        return cls(DataLoader(samples, batch_size, sampler=SequentialSampler(samples), collate_fn=collator))

    @classmethod
    def from_batches(cls, batches: Sequence[Mapping[str, Tensor]]) -> CalibrationData:
        """Batches already made by a processor; samples are numbered in order of appearance.

        Raises:
            InputError: there is no batch, or one is padded on the left.
        """
        if not batches:
            raise InputError("calibration is empty: give at least one batch of model inputs")
        sizes = [len(b["input_ids"]) for b in batches]
        starts = [sum(sizes[:k]) for k in range(len(sizes))]
        ready = [calibration_batch(b, range(s, s + n)) for b, s, n in zip(batches, starts, sizes, strict=True)]
        return cls(DataLoader(_Ready(ready), batch_size=None))

    @property
    def batches(self) -> int:
        """Number of batches."""
        return len(self.loader)

    def samples_before(self, batch: int) -> int:
        """Number of samples in the batches before that of this number."""
        ahead = self._indices()[:batch]
        if self.loader.batch_sampler is None:
            return sum(len(self.loader.dataset[index]["sample_ids"]) for index in ahead)
        return sum(map(len, ahead))

    def train_dataloader(self) -> DataLoader:
        """What this process reads in this epoch; with several processes, as many batches as the others."""
        module: Any = self.trainer.lightning_module if self.trainer else None
        if module is not None and module.skip_forward:
            return DataLoader(range(1), batch_size=None)  # type: ignore[arg-type]
        if module is None:
            return self.loader
        if not module.needs_inputs:
            return DataLoader(range(module.share.steps), batch_size=None)  # type: ignore[arg-type]
        own, steps = module.share.own, module.share.steps
        return self.loader if steps == self.batches else self._part([min(own[0] + k, own[-1]) for k in range(steps)])

    def _part(self, numbers: Sequence[int]) -> DataLoader:
        """Some of the batches."""
        loader, indices = self.loader, self._indices()
        chosen = [indices[number] for number in numbers]
        how = {"sampler": chosen, "batch_size": None} if loader.batch_sampler is None else {"batch_sampler": chosen}
        return DataLoader(loader.dataset, collate_fn=loader.collate_fn, num_workers=loader.num_workers, **how)

    def _indices(self) -> list[Any]:
        """What the loader asks its data set for, batch by batch."""
        return list(self.loader.sampler if self.loader.batch_sampler is None else self.loader.batch_sampler)


class _Ready(Dataset[dict[str, Tensor]]):
    def __init__(self, batches: list[dict[str, Tensor]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.batches[index]
