"""Samples that ride along the prune walk are scored as `trainer.validate` scores them, and change nothing."""

import copy

import pytest
import torch

from tamp_lightning.config.recipe import PruneRecipe, ScoreChoice
from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.evaluation.layerwise import LayerwiseScores
from tamp_lightning.evaluation.scoring import score
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.towers import Towers
from tamp_lightning.passes.trainer import prune_stream, scoring_trainer
from tamp_lightning.stream import DiskStream, MemoryStream

from ..conftest import TAMP, WANDA, hashes
from ..fixtures.asking import cut_suite

METHODS = {
    "tamp": TAMP,
    "wanda": WANDA,
    "two passes": Method(tokens="atv", allocation="uniform"),
    "held out": Method(tokens="modality_mix", allocation="uniform"),
}


@pytest.fixture(scope="module")
def suite(processor):
    """Thirty questions of the quick slice."""
    return cut_suite(processor, slice(0, 80, 4))


@pytest.fixture
def data(processor):
    texts = ["<image>what is the shape", "what colour", "<image>Is there a circle in the image", "<image>yes no"]
    pictures = [torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))] * 2
    batches = [
        processor(text=texts[:2], images=pictures[:1], return_tensors="pt", padding=True, padding_side="right"),
        processor(text=texts[2:], images=pictures, return_tensors="pt", padding=True, padding_side="right"),
    ]
    return CalibrationData.from_batches(batches)


def whole(model, suite, dense=None):
    trainer = scoring_trainer(accelerator="cpu", enable_progress_bar=False)
    return score(model, suite, trainer, batch_size=7, dense=dense)


def same(first, second):
    assert first.results == second.results
    assert first.predictions == second.predictions
    assert first.certainty == second.certainty
    assert first.divergence == second.divergence
    for kind, values in first.values.items():
        assert torch.equal(torch.tensor(values).nan_to_num(-1), torch.tensor(second.values[kind]).nan_to_num(-1))


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_scores_are_those_of_whole_models(bed, suite, data, method, place, tmp_path):
    model, layerwise = copy.deepcopy(bed), LayerwiseScores([suite], 7)
    if place == "memory":
        stream = MemoryStream(model)
    else:
        bed.save_pretrained(tmp_path / "source")
        stream = DiskStream(tmp_path / "source", tmp_path / "out")
    prune_stream(stream, data, method, progress=False, layerwise=layerwise, accelerator="cpu")
    if place == "disk":
        model = type(bed).from_pretrained(tmp_path / "out").eval()
    before = whole(bed, suite)
    after = whole(model, suite, before)
    [dense], [pruned] = layerwise.scores()
    same(dense, before)
    same(pruned, after)
    assert pruned.results["fidelity"]["kl"] > 0


@pytest.mark.parametrize("method", [TAMP, METHODS["two passes"]], ids=["tamp", "two passes"])
def test_riders_enter_no_statistic(bed, suite, data, method):
    alone, along = (copy.deepcopy(bed) for _ in range(2))
    first = prune_stream(MemoryStream(alone), data, method, progress=False, accelerator="cpu")
    options = {"progress": False, "accelerator": "cpu", "layerwise": LayerwiseScores([suite], 7)}
    second = prune_stream(MemoryStream(along), data, method, **options)
    assert hashes(first) == hashes(second)
    assert first.linears == second.linears
    assert first.scores == second.scores


def test_what_riders_do_not_know_is_refused():
    along = ScoreChoice(mode="layer_wise")
    with pytest.raises(ValueError, match=r"layer_wise does not go with pruned towers: set scores.mode: whole"):
        PruneRecipe(scores=along, towers=Towers(0.3))
    with pytest.raises(ValueError, match="layer_wise does not go with mode: one_shot"):
        PruneRecipe(scores=along, method=Method(allocation="uniform", mode="one_shot"))
    PruneRecipe(scores=ScoreChoice(benchmarks="none", mode="layer_wise"), towers=Towers(0.3))
