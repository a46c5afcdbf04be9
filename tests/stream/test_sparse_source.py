"""A checkpoint that holds zeros already, such as a pruned one, is pruned like any other."""

import pytest
import torch
from transformers import LlavaNextForConditionalGeneration

from tamp_lightning import prune

from ..conftest import as_batch, toys
from .conftest import make_llava, save

OPTIONS = {"progress": False, "accelerator": "cpu"}
SOLVERS = {
    "wanda": {"tokens": "all", "allocation": "uniform"},
    "sparsegpt": {"tokens": "all", "allocation": "uniform", "solver": "sparsegpt"},
    "magnitude": {"tokens": "all", "allocation": "uniform", "solver": "magnitude"},
}


def weights(folder, names):
    model = LlavaNextForConditionalGeneration.from_pretrained(folder)
    return {name: model.get_parameter(f"{name}.weight").detach() for name in names}


@pytest.mark.parametrize("method", SOLVERS.values(), ids=SOLVERS)
def test_pruned_weights_stay_pruned_and_the_budget_counts_masks(tmp_path, method):
    source, batches = save(make_llava(), tmp_path / "source"), [as_batch(toys("tptp"))]
    first = prune(source, batches, out=tmp_path / "first", method={"sparsity": 0.5, **method}, **OPTIONS)
    again = {"out": tmp_path / "more", "method": {"sparsity": 0.7, **method}}
    more = prune(first.checkpoint, batches, **again, **OPTIONS)
    fewer = prune(first.checkpoint, batches, out=tmp_path / "fewer", method={"sparsity": 0.3, **method}, **OPTIONS)
    assert more.sparsity == pytest.approx(0.7, abs=1e-3)
    assert fewer.sparsity == pytest.approx(0.3, abs=1e-3)
    half, most = weights(first.checkpoint, first.plan), weights(more.checkpoint, more.plan)
    for name, weight in half.items():
        assert torch.equal((weight == 0) & (most[name] != 0), torch.zeros_like(weight, dtype=torch.bool))
        assert bool((fewer.mask(name) | (weight == 0)).all())  # nothing but zeros goes if fewer are wanted
