"""A trainer for scoring, and runs of one benchmark on the tiny random model."""

from pathlib import Path

import datasets
import lightning as L
import pytest

from tamp_lightning.benchmarks.base import Benchmark
from tamp_lightning.data.readers.item import Items
from tamp_lightning.evaluation.benchmarks import answer_all
from tamp_lightning.evaluation.generate import Answers, Way
from tamp_lightning.evaluation.predictions import Store, questions_digest
from tamp_lightning.passes.trainer import scoring_trainer


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
    datasets.disable_progress_bars()


@pytest.fixture(scope="session")
def trainer() -> L.Trainer:
    return scoring_trainer(accelerator="cpu", enable_progress_bar=False, use_distributed_sampler=False)


@pytest.fixture
def run(bed, processor, trainer, tmp_path):
    """Answers of the tiny model to a benchmark, and the store they are in."""

    def call(benchmark: Benchmark, items: Items, folder: Path | None = None, **way) -> tuple[Answers, Store]:
        inputs = {"questions": questions_digest(benchmark, items), "likelihood": way.get("likelihood", False)}
        store = Store(folder or tmp_path / "runs", benchmark.name, inputs)
        store.start()
        way = Way(**{"new_tokens": 4, "batch_size": 3, "frames": 2, "frames_as_pictures": True, **way})
        return answer_all(bed, processor, benchmark, items, store, trainer, way), store

    return call
