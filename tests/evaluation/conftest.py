"""Fixtures that ask questions."""

import copy

import pytest
import torch

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data.easy_vqa import CANDIDATES
from tamp_lightning.data.readers.item import Source
from tamp_lightning.evaluation.scoring import score
from tamp_lightning.passes.trainer import scoring_trainer
from tamp_lightning.testbeds import easy_vqa_layouts

from ..fixtures.asking import _own_cache, cut_suite, run, trainer

__all__ = ["_own_cache", "run", "trainer"]


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    """easy-VQA in the public layout of a benchmark, cut to a few questions."""
    pytest.importorskip("easy_vqa")

    def read(name, limit=5):
        source = easy_vqa_layouts.write(name, tmp_path_factory.getbasetemp() / "easy")
        return BENCHMARKS[name].read(Source(source.path, media=source.media, limit=limit))

    return read


@pytest.fixture(scope="module")
def suite(processor):
    """Forty questions of the quick slice, about as many pictures."""
    suite = cut_suite(processor, slice(0, 90, 3))
    assert any(len(positions) > 1 for _, positions in suite.groups)
    assert {q.kind for q in suite.items} == set(CANDIDATES)
    return suite


@pytest.fixture(scope="module")
def other(bed):
    """A model that answers differently."""
    model = copy.deepcopy(bed)
    with torch.no_grad():
        for block in model.get_decoder().layers:
            block.mlp.down_proj.weight.mul_(torch.rand(block.mlp.down_proj.weight.shape) > 0.5)
    return model


def scored(model, suite, dense=None, size=7):
    trainer = scoring_trainer(accelerator="cpu", enable_progress_bar=False)
    return score(model, suite, trainer, batch_size=size, dense=dense)
