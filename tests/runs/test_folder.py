"""The run folder's files say what was done, and stand under their names only when complete."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tamp_lightning.errors import InputError
from tamp_lightning.runs.folder import RunFolder
from tamp_lightning.runs.plan import SCHEMA, measured

from ..conftest import TAMP, WANDA, calibration, run, toys
from ..stream.conftest import make_llava


@pytest.fixture(scope="module")
def model():
    return make_llava()


@pytest.fixture(scope="module")
def pruned(model):
    return run(model, calibration(toys("tpt"), 2), TAMP)


def test_masks_unpack_to_where_the_weights_are(model, pruned, tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_plan(pruned.plan)
    folder.write_bits(pruned.plan, pruned.masks)
    with safe_open(tmp_path / "masks.safetensors", "np") as file:
        assert set(file.keys()) == set(pruned.linears)
        for name, row in pruned.linears.items():
            shape = json.loads(file.metadata()[name])
            mask = np.unpackbits(file.get_tensor(name))[: math.prod(shape)].reshape(shape).astype(bool)
            np.testing.assert_array_equal(mask, model.get_submodule(name).weight.detach().numpy() != 0)
            assert mask.sum() == row["kept"]
    assert all(mask.numpy().sum() == pruned.linears[name]["kept"] for name, mask in folder.read_masks().items())


def test_plan_adds_up(pruned):
    plan = pruned.plan.content
    rows = plan["linears"].values()
    kept, size = (sum(row[key] for row in rows) for key in ("kept", "size"))
    assert plan["sparsity"] == pruned.sparsity == pytest.approx(1 - kept / size)
    assert kept == round(size / 2)
    for row in rows:
        assert row["sparsity"] == pytest.approx(1 - row["kept"] / row["size"])
        assert row["size"] == math.prod(row["shape"])
        assert sum(row["token_share"].values()) == pytest.approx(1)
        assert list(row["cosine"]) == ["text-text", "text-image", "image-image"]
        assert row["diversity"] == pytest.approx(1 - sum(row["cosine"].values()) / 3)
    json.dumps(plan, allow_nan=False)


def test_a_method_that_measures_nothing_claims_no_diversity():
    plan = run(make_llava(), calibration(toys("tp"), 2), WANDA).plan.content
    assert all("diversity" not in row and "cosine" not in row for row in plan["linears"].values())


def test_a_plan_comes_back(pruned, tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_plan(pruned.plan)
    assert folder.read_plan() == pruned.plan
    assert json.loads((tmp_path / "plan.json").read_text())["schema"] == SCHEMA


def test_what_was_measured_comes_back(pruned):
    for name, row in pruned.plan.linears.items():
        score, cosine = measured(row)
        assert score == pruned.scores[name]
        np.testing.assert_array_equal(cosine, pruned.cosines[name].double())


def test_files_of_0_1_0_are_read(pruned, tmp_path):
    """They have no schema; everything else is as it is today."""
    folder = RunFolder(tmp_path)
    folder.write_plan(pruned.plan)
    folder.write_bits(pruned.plan, pruned.masks)
    folder.write_run({"seconds": {"prune": 1.0}})
    for name in ("plan.json", "run.json"):
        content = json.loads((tmp_path / name).read_text())
        del content["schema"]
        (tmp_path / name).write_text(json.dumps(content, indent=1) + "\n")
    assert folder.is_finished
    assert folder.read_plan() == pruned.plan
    assert folder.read_masks().keys() == pruned.linears.keys()
    assert folder.read_run() == {"seconds": {"prune": 1.0}}


@pytest.mark.parametrize("name", ["plan.json", "run.json"])
def test_a_newer_folder_is_refused(tmp_path, name):
    (tmp_path / name).write_text(json.dumps({"schema": SCHEMA + 1, "linears": {}}))
    read = {"plan.json": RunFolder(tmp_path).read_plan, "run.json": RunFolder(tmp_path).read_run}[name]
    with pytest.raises(InputError, match=f"{name} has schema {SCHEMA + 1}, this version reads up to {SCHEMA}: update"):
        read()


@pytest.mark.parametrize(("text", "why"), [("{", "Expecting property name"), ("[]", "holds no JSON object")])
def test_a_damaged_file_is_named(tmp_path, text, why):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=f"cannot be read as a run folder: run.json.*{why}"):
        RunFolder(tmp_path).read_run()


def test_masks_alone_make_a_plan(tmp_path):
    masks = {"layers.0.up": torch.tensor([[True, False], [True, True]]), "layers.0.down": torch.zeros(1, 4).bool()}
    folder = RunFolder(tmp_path)
    folder.write_masks(masks)
    found = folder.read_masks()
    assert found.keys() == masks.keys()
    assert all(torch.equal(found[name], mask) for name, mask in masks.items())
    assert folder.read_plan().sparsity == 1 - 3 / 8
    assert [row["sparsity"] for row in folder.read_plan().linears.values()] == [0.25, 1.0]
