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

from tamp_lightning.data.batches import check_batch, right_padded
from tamp_lightning.data.chats import KINDS, Messages
from tamp_lightning.data.readers.item import Bad
from tamp_lightning.errors import InputError

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
    """Samples made on demand by a function of their position; `bad` holds what was left out of their source."""

    def __init__(self, length: int, make: Callable[[int], Sample], bad: Sequence[Bad] = ()) -> None:
        self.length, self.make, self.bad = length, make, bad

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        return self.make(index)


def calibration_batch(inputs: Mapping[str, Tensor], ids: Sequence[int], place: str = "") -> dict[str, Tensor]:
    """Model inputs plus `sample_ids` [B] and `valid` [B,n]; the attention mask is left out.

    In a causal decoder no token sees padding on its right, so the mask changes no valid token's hidden state,
    and without it attention runs its fastest kernel and nothing of size n x n is stored.

    Args:
        inputs: of the model.
        ids: of the samples.
        place: what messages begin with.

    Raises:
        InputError: the padding is not on the right, or a row is nothing but padding.
    """
    batch = {k: v for k, v in inputs.items() if isinstance(v, Tensor)}
    mask = batch.pop("attention_mask", None)
    valid = right_padded(torch.ones_like(batch["input_ids"]) if mask is None else mask, place)
    return {**batch, "sample_ids": torch.tensor(list(ids)), "valid": valid}


def spelled_out(messages: Messages, processor: Any) -> Messages:
    """The same turns, a processor's own placeholder within a text broken up by a space, so that it stays text.

    Media have parts of their own: where a person writes about a `<video>` tag, the processor would look for a video.
    """
    tokens = [token for kind in KINDS if isinstance(token := getattr(processor, f"{kind}_token", None), str)]

    def spelled(text: str) -> str:
        for token in tokens:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def content(given: Any) -> Any:
        if isinstance(given, str):
            return spelled(given)
        return [{**part, "text": spelled(part["text"])} if part["type"] == "text" else part for part in given]

    return [{**turn, "content": content(turn["content"])} for turn in messages]


class Collator:
    """Runs samples through the chat template and the processor; samples with and without media may be mixed.

    Args:
        processor: the model's.
        drop_silence: mark the silence after sounds as `ignored` [B,n]: attended to, but left out of statistics.
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
        chats = [spelled_out(s.messages, self.processor) for s in samples]
        texts = [self.processor.apply_chat_template(chat, **self.options) for chat in chats]
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
            InputError: there is no batch, or one is not what a processor makes, or padded on the left.
        """
        if not batches:
            raise InputError("calibration is empty: give at least one batch of model inputs")
        for number, batch in enumerate(batches):
            check_batch(number, batch)
        sizes = [len(b["input_ids"]) for b in batches]
        starts = [sum(sizes[:k]) for k in range(len(sizes))]
        ready = [
            calibration_batch(b, range(s, s + n), f"calibration batch {k}: ")
            for k, (b, s, n) in enumerate(zip(batches, starts, sizes, strict=True))
        ]
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
            return DataLoader(range(module.partition.steps), batch_size=None)  # type: ignore[arg-type]
        own, steps = module.partition.own, module.partition.steps
        return self.loader if steps == self.batches else self._part([min(own[0] + k, own[-1]) for k in range(steps)])

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Everything but the samples' numbers, which are keys: to read them on a GPU would be to wait for it."""
        moved = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return {**moved, "sample_ids": batch["sample_ids"]} if isinstance(batch, Mapping) else moved

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
