"""Losses against literal computations."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from tamp_lightning.config.finetune import DistillSection
from tamp_lightning.data.easy_vqa import load_picture
from tamp_lightning.data.finetuning import collate_packed
from tamp_lightning.data.packing import IGNORE, pack
from tamp_lightning.finetune.losses import Answers, Distillation, block_error, distillation

BLOCKS = "model.language_model.layers"
TURNS = [("what color is the shape?", "red"), ("is there a circle?", "no")]


@pytest.fixture
def batch(processor):
    packed = [pack(processor, load_picture("train", k), TURNS[: 2 - k]) for k in range(2)]
    return collate_packed(packed)


@torch.no_grad()
def one_by_one(model, processor, number, question, answer):
    """Logits [tokens,vocab] and labels of one answer, from a sequence with that question alone."""
    packed = pack(processor, load_picture("train", number), [(question, answer)])
    logits = model(input_ids=packed.input_ids[None], use_cache=False, **packed.pixels).logits[0]
    wanted = packed.labels != IGNORE
    return logits[wanted], packed.labels[wanted]


def every(model, processor):
    asked = [(0, *TURNS[0]), (0, *TURNS[1]), (1, *TURNS[0])]
    rows = [one_by_one(model, processor, *question) for question in asked]
    return torch.cat([logits for logits, _ in rows]), torch.cat([labels for _, labels in rows])


def test_answers_are_those_of_unpacked_questions(bed, processor, batch):
    logits, labels = every(bed, processor)
    expected = -sum(math.log(F.softmax(row, -1)[label]) for row, label in zip(logits, labels, strict=True)) / len(
        labels
    )
    assert Answers()(bed, batch)["loss"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_distillation_by_hand(temperature):
    student, teacher = (torch.randn(3, 5, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    total = 0.0
    for ours, theirs in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = ([math.exp(v / temperature) for v in row] for row in (theirs, ours))
        p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert float(distillation(student, teacher, temperature)) == pytest.approx(temperature**2 * total / 3, rel=1e-5)


def test_distillation_of_the_teacher_itself_is_zero():
    logits = torch.randn(4, 7)
    assert float(distillation(logits, logits, 2.0)) == pytest.approx(0, abs=1e-6)


def test_block_error_by_hand():
    """Two blocks, one padded token: (1 + 4) / (1 + 4) over valid tokens, then 0; their mean is 0.5."""
    teacher = [torch.tensor([[[1.0], [2.0], [9.0]]]), torch.ones(1, 3, 1)]
    student = [torch.zeros(1, 3, 1), torch.ones(1, 3, 1)]
    assert float(block_error(student, teacher, torch.tensor([[True, True, False]]))) == 0.5


def test_the_parts_add_up(bed, processor, batch, student):
    model, _ = student
    section = DistillSection(temperature=2.0, answers=0.5, blocks=0.25)
    parts = Distillation(copy.deepcopy(bed), BLOCKS, section)(model, batch)
    ours, labels = every(model, processor)
    theirs, _ = every(bed, processor)
    assert float(parts["kl"]) == pytest.approx(float(distillation(ours, theirs, 2.0)), rel=1e-3)
    assert float(parts["answers"]) == pytest.approx(float(F.cross_entropy(ours, labels)), rel=1e-3)
    assert parts["blocks"].item() > 0
    total = parts["kl"] + 0.5 * parts["answers"] + 0.25 * parts["blocks"]
    torch.testing.assert_close(parts["loss"], total)


def test_only_the_student_gets_gradients(bed, batch, student):
    model, _ = student
    model.requires_grad_(True)
    teacher = copy.deepcopy(bed)
    Distillation(teacher, BLOCKS, DistillSection(blocks=1.0))(model, batch)["loss"].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert model.get_parameter(f"{BLOCKS}.0.mlp.up_proj.weight").grad is not None


def test_blocks_are_left_out_unless_wanted(bed, batch, student):
    parts = Distillation(copy.deepcopy(bed), BLOCKS, DistillSection())(student[0], batch)
    assert set(parts) == {"loss", "kl", "answers"}
    assert torch.equal(parts["loss"], parts["kl"])
