"""Batches that teach a tower look like what the processor makes."""

import random

import numpy as np
import torch

from tamp_lightning.data.easy_vqa import COLOURS, SHAPES, by_picture, load_picture, questions
from tamp_lightning.data.packing import IGNORE
from tamp_lightning.data.tower_training import UNKNOWN, LabelledPictures, PackedQuestions, augment, crops, draw


def as_tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def test_crops_are_the_processors_pixels(processor):
    pictures = [load_picture("test", k) for k in range(40)]
    real = processor(text=["<image>"] * 40, images=pictures, return_tensors="pt")["pixel_values"]
    made = crops(torch.stack([as_tensor(p) for p in pictures]))
    assert made.shape == real.shape == (40, 5, 3, 32, 32)
    torch.testing.assert_close(made, real, rtol=0, atol=0.04)  # Pillow rounds and clamps between its two passes
    assert float((made - real).abs().mean()) < 0.001
    torch.testing.assert_close(made[:, 1:], real[:, 1:], rtol=0, atol=1e-6)  # tiles are cut, not resized
    assert float((made[0] - made[1]).abs().max()) > 0.1


def two_colours(picture):
    return {colour for _, colour in sorted(picture.getcolors(64 * 64))[-2:]}


def test_augmenting_keeps_size_and_colours():
    picture, rng = load_picture("train", 0), random.Random(0)
    own = two_colours(picture)
    results = [augment(picture, rng) for _ in range(8)]
    assert len({r.tobytes() for r in results}) > 4
    for result in results:
        assert result.size == (64, 64)
        assert two_colours(result) == own


def test_labelled_pictures_depend_on_their_number_alone():
    data = LabelledPictures(5)
    assert len(data) == 5
    first, again, other = data[0], data[0], data[1]
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == (3, 64, 64)
    for shape, colour in (data[k][1].tolist() for k in range(5)):
        assert UNKNOWN <= shape < len(SHAPES)
        assert UNKNOWN <= colour < len(COLOURS)


def test_questions_are_drawn_without_repetition_from_all_kinds_of_answers():
    for items in list(by_picture(questions("train")).values())[:20]:
        cells = {(q.kind, q.negated, q.answer) for q in items}
        chosen = draw(items, len(cells), random.Random(0))
        assert {(q.kind, q.negated, q.answer) for q in chosen} == cells
        every = draw(items, 1000, random.Random(0))
        assert sorted(q.id for q in every) == sorted(q.id for q in items)
        assert len(draw(items, 2, random.Random(0))) == 2


def test_packed_questions_are_numbered_and_use_training_pictures(processor):
    data = PackedQuestions(processor, 3, 2)
    assert len(data) == 3
    assert torch.equal(data[1].input_ids, data[1].input_ids)
    assert torch.equal(data[1].pixels["pixel_values"], data[1].pixels["pixel_values"])
    assert all(1 <= len(data[k].first) <= 2 for k in range(3))
    assert all(int((data[k].labels != IGNORE).sum()) == 2 * len(data[k].first) for k in range(3))
    assert {number for number, _ in data.pictures} == set(range(3500))
