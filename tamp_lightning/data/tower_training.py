"""Batches that teach a vision tower: labelled pictures first, then packed questions."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import LlavaNextProcessor

from tamp_lightning.data.easy_vqa import COLOURS, SHAPES, Question, by_picture, labels, load_picture, questions
from tamp_lightning.data.packing import Packed, pack

UNKNOWN = -1
_TURNS = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


def augment(picture: Image.Image, rng: random.Random, shift: int = 6) -> Image.Image:
    """Flip, quarter turn and shift by up to `shift` pixels; the background fills the border.

    Without it the tower remembers pictures: shape stays at two thirds on new ones.
    """
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turn = rng.choice(_TURNS)
    if turn is not None:
        picture = picture.transpose(turn)
    pixels = Counter(zip(*(band.tobytes() for band in picture.split()), strict=True))
    moved = Image.new("RGB", picture.size, pixels.most_common(1)[0][0])
    moved.paste(picture, (rng.randint(-shift, shift), rng.randint(-shift, shift)))
    return moved


def crops(pictures: Tensor) -> Tensor:
    """Overview and four tiles of 64-pixel pictures, as the bed's processor cuts them, many at a time.

    Args:
        pictures: [B,3,64,64] uint8.

    Returns:
        [B,5,3,32,32] float32 in [-1, 1].
    """
    scaled = pictures.float() / 127.5 - 1
    overview = F.interpolate(scaled, size=32, mode="bicubic", antialias=True).clamp(-1, 1)
    tiles = scaled.unflatten(2, (2, 32)).unflatten(4, (2, 32)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    return torch.cat([overview[:, None], tiles], dim=1)


class LabelledPictures(Dataset):
    """`length` augmented train pictures [3,64,64] uint8 with the number of their shape and colour (-1 = unknown)."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.pictures = [(p, labels(qs)) for p, qs in by_picture(questions("train")).items()]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = random.Random(index)
        number, known = rng.choice(self.pictures)
        picture = np.array(augment(load_picture("train", number), rng))
        found = [UNKNOWN if k is None else n.index(k) for k, n in zip(known, (SHAPES, COLOURS), strict=True)]
        return torch.from_numpy(picture).permute(2, 0, 1), torch.tensor(found)


def draw(items: list[Question], count: int, rng: random.Random) -> list[Question]:
    """Up to `count` questions of one picture, taken in turn from each (kind, negated, answer) so that
    the words of a question say little about its answer."""
    cells: dict[tuple[str, bool, str], list[Question]] = {}
    for q in items:
        cells.setdefault((q.kind, q.negated, q.answer), []).append(q)
    piles = [rng.sample(pile, len(pile)) for pile in cells.values()]
    rng.shuffle(piles)
    chosen: list[Question] = []
    while piles and len(chosen) < count:
        chosen += [pile.pop() for pile in piles][: count - len(chosen)]
        piles = [pile for pile in piles if pile]
    return chosen


class PackedQuestions(Dataset):
    """`length` augmented train pictures, each with up to `per_picture` questions in one packed sequence."""

    def __init__(self, processor: LlavaNextProcessor, length: int, per_picture: int) -> None:
        self.processor, self.length, self.per_picture = processor, length, per_picture
        self.pictures = list(by_picture(questions("train")).items())

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Packed:
        rng = random.Random(index)
        number, items = rng.choice(self.pictures)
        turns = [(q.text, q.answer) for q in draw(items, self.per_picture, rng)]
        return pack(self.processor, augment(load_picture("train", number), rng), turns)
