"""What sparse finetuning reads: numbered training examples, and others that are held out."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import LlavaNextProcessor

from tamp_lightning.data.calibration import Sample, SampleList
from tamp_lightning.data.easy_vqa import by_picture, load_picture, questions
from tamp_lightning.data.packing import PADDING, Packed, collate, pack
from tamp_lightning.data.tower_training import augment, draw
from tamp_lightning.errors import InputError


class PictureQuestions(Dataset[Packed]):
    """easy-VQA's train pictures, some of them, with their questions packed.

    Args:
        processor: the model's.
        pictures: their numbers.
        per_picture: questions of each, at most.
        seed: None = each picture once, as it is; otherwise endless: example i is an augmented picture drawn with
            (seed, i).
    """

    def __init__(
        self, processor: LlavaNextProcessor, pictures: Sequence[int], per_picture: int, seed: int | None
    ) -> None:
        asked = by_picture(questions("train"))
        self.processor, self.per_picture, self.seed = processor, per_picture, seed
        self.pictures = [(number, asked[number]) for number in pictures]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Packed:
        rng = random.Random(f"{self.seed}/{index}")
        number, items = self.pictures[index] if self.seed is None else rng.choice(self.pictures)
        picture = load_picture("train", number)
        turns = [(q.text, q.answer) for q in draw(items, self.per_picture, rng)]
        return pack(self.processor, picture if self.seed is None else augment(picture, rng), turns)


class Conversations(Dataset[Sample]):
    """Some of a file's conversations; with a seed endless, every one once in each round, in an order of its own."""

    def __init__(self, samples: SampleList, chosen: Sequence[int], seed: int | None) -> None:
        self.samples, self.chosen, self.seed = samples, chosen, seed

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Sample:
        if self.seed is None:
            return self.samples[self.chosen[index]]
        lap, place = divmod(index, len(self.chosen))
        order = random.Random(f"{self.seed}/{lap}").sample(self.chosen, len(self.chosen))
        return self.samples[order[place]]


def collate_packed(samples: Sequence[Packed]) -> dict[str, Tensor]:
    """Packed batch plus `valid` [B,n]: what is no padding."""
    batch = collate(samples)
    return {**batch, "valid": batch["segments"] != PADDING}


def split(total: int, held_out: int, seed: int, name: str) -> tuple[list[int], list[int]]:
    """Positions to train on, and `held_out` others.

    Raises:
        InputError: nothing would be left to train on.
    """
    if held_out >= total:
        raise InputError(f"data.held_out is {held_out}, {name} has {total}: nothing is left to train on")
    order = random.Random(seed).sample(range(total), total)
    return sorted(order[held_out:]), sorted(order[:held_out])


class FinetuneBatches(L.LightningDataModule):
    """Batches by number, so that a resumed run reads what an uninterrupted one would have.

    Lightning's epoch k is the steps between look k and k+1 at the held-out loss. Example i of the run is the same for
    any number of processes, which take every so many-th.

    Args:
        train: endless examples by number.
        held_out: the others, each once.
        collate_fn: makes a batch of examples.
        batch: examples per batch and process.
        lengths: batches of each epoch.
    """

    def __init__(
        self,
        train: Dataset,
        held_out: Dataset,
        collate_fn: Callable[[Any], dict[str, Tensor]],
        batch: int,
        lengths: Sequence[int],
    ) -> None:
        super().__init__()
        self.train, self.held_out, self.collate_fn, self.batch, self.lengths = (
            train,
            held_out,
            collate_fn,
            batch,
            lengths,
        )

    def train_dataloader(self) -> DataLoader:
        """The batches of the current epoch."""
        assert self.trainer is not None
        rank, world, epoch = self.trainer.global_rank, self.trainer.world_size, self.trainer.current_epoch
        before, now = sum(self.lengths[:epoch]), self.lengths[min(epoch, len(self.lengths) - 1)]
        step = self.batch * world
        return self._loader(self.train, range(before * step + rank, (before + now) * step, world))

    def val_dataloader(self) -> DataLoader:
        """What is held out, shared among the processes."""
        assert self.trainer is not None
        return self._loader(self.held_out, range(self.trainer.global_rank, len(self.held_out), self.trainer.world_size))  # type: ignore[arg-type]

    def _loader(self, data: Dataset, numbers: range) -> DataLoader:
        return DataLoader(data, self.batch, sampler=numbers, collate_fn=self.collate_fn)
