"""Checkpoints are scored once: the second time answers come from the cache, and no model is read."""

import copy
import json

import pytest
import torch

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data.readers.item import Source
from tamp_lightning.evaluation import scorer as module
from tamp_lightning.evaluation.generate import GenerationTask
from tamp_lightning.evaluation.items import GenerationOptions
from tamp_lightning.evaluation.likelihood import LikelihoodTask
from tamp_lightning.evaluation.scorer import Scorer
from tamp_lightning.evaluation.store import AnswersInMemory
from tamp_lightning.testbeds import easy_vqa_layouts

CPU = {"accelerator": "cpu", "enable_progress_bar": False}


@pytest.fixture
def folders(bed, processor, tmp_path, monkeypatch):
    """A dense and a pruned checkpoint, and a cache of their own."""
    monkeypatch.setenv("TAMP_ANSWERS", str(tmp_path / "answers"))
    other = copy.deepcopy(bed)
    with torch.no_grad():
        for block in other.get_decoder().layers:
            block.mlp.down_proj.weight.mul_(torch.rand(block.mlp.down_proj.weight.shape) > 0.5)
    for name, model in (("dense", bed), ("pruned", other)):
        model.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
    return tmp_path / "dense", tmp_path / "pruned"


@pytest.fixture
def tasks(processor, tmp_path_factory):
    pytest.importorskip("easy_vqa")
    source = easy_vqa_layouts.write("pope", tmp_path_factory.getbasetemp() / "easy")
    items = BENCHMARKS["pope"].read(Source(source.path, media=source.media, limit=6))
    way = GenerationOptions(new_tokens=3)
    return [kind(BENCHMARKS["pope"], items, processor, way, "test") for kind in (GenerationTask, LikelihoodTask)]


def test_the_second_time_nothing_is_asked_and_figures_are_the_same(folders, tasks, monkeypatch):
    lines = []
    scorer = Scorer(tasks, 4, trainer=CPU, say=lines.append)
    dense = scorer.score(folders[0], "score dense")
    pruned = scorer.score(folders[1], "score pruned", folders[0])
    assert not lines
    assert list(scorer.clock.seconds) == ["score dense", "score pruned"]
    assert pruned[1].results["fidelity"]["kl"] > 0
    assert "fidelity" not in pruned[0].results
    monkeypatch.setattr(module, "load_whole", None)
    again = Scorer(tasks, 4, trainer=CPU, say=lines.append)
    for first, second in zip(dense, again.score(folders[0], "score dense"), strict=True):
        assert first.results == second.results
        assert first.records == second.records
    found = again.score(folders[1], "score pruned", folders[0])
    assert [own.results for own in found] == [own.results for own in pruned]
    assert not again.clock.seconds
    assert [line.split(":")[0] for line in lines] == ["pope"] * 4
    assert lines[0] == "pope: 6 answers of dense from the cache"


def test_likelihood_packs_the_questions_of_a_picture(processor, tmp_path_factory, bed, trainer):
    """Certainty is the softmax of the candidates' mean log-likelihoods, and KL is 0 to the model itself."""
    pytest.importorskip("easy_vqa")
    source = easy_vqa_layouts.write("mmbench", tmp_path_factory.getbasetemp() / "easy")
    items = BENCHMARKS["mmbench"].read(Source(source.path, media=source.media, limit=3))
    task = LikelihoodTask(BENCHMARKS["mmbench"], items, processor, GenerationOptions())
    assert len(task) == len(set(task.pictures)) < len(items)
    dense = module.score_into(AnswersInMemory(), bed, task, trainer, batch_size=2, keep_log_probs=True)
    again = module.score_into(AnswersInMemory(), bed, task, trainer, batch_size=3, dense=dense.log_probs)
    assert again.results["fidelity"]["kl"] == pytest.approx(0, abs=1e-7)
    for position, record in dense.records.items():
        means = -torch.tensor(record.nll, dtype=torch.float64) / torch.tensor(record.lengths)
        right = task.benchmark.answer_index(items.items[position])
        assert record.certainty == pytest.approx(float(means.softmax(0)[right]))


def test_a_dense_model_that_was_evaluated_without_log_probs_is_asked_again(folders, tasks):
    scorer = Scorer(tasks[1:], 4, trainer=CPU)
    scorer.score(folders[0], "score dense")
    store = scorer.store(tasks[1], folders[0])
    for path in store.folder.glob("log_probs-*"):
        path.unlink()
    [scores] = scorer.score(folders[1], "score pruned", folders[0])
    assert scores.results["fidelity"]["kl"] > 0
    assert json.loads((store.folder / "inputs.json").read_text())["answers"] == "likelihood"


def test_other_bytes_are_another_checkpoint(folders, tasks):
    scorer = Scorer(tasks[:1], 4, trainer=CPU)
    keys = [scorer.store(tasks[0], folder).folder for folder in folders]
    assert keys[0] != keys[1]
    path = folders[0] / "model.safetensors"
    held = bytearray(path.read_bytes())
    held[-1] ^= 1
    path.write_bytes(bytes(held))
    assert scorer.store(tasks[0], folders[0]).folder not in keys
