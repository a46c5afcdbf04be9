"""The run folder's files say what was done, and stand under their names only when complete."""

import json
import math

import numpy as np
import pytest
from safetensors import safe_open

from tamp_lightning.files import write_json
from tamp_lightning.tasks.run_folder import plan_content, write_masks

from ..conftest import TAMP, WANDA, calibration, run, toys
from ..stream.conftest import make_llava


@pytest.fixture(scope="module")
def model():
    return make_llava()


@pytest.fixture(scope="module")
def pruned(model):
    return run(model, calibration(toys("tpt"), 2), TAMP)


def test_masks_unpack_to_where_the_weights_are(model, pruned, tmp_path):
    write_masks(tmp_path, pruned)
    with safe_open(tmp_path / "masks.safetensors", "np") as file:
        assert set(file.keys()) == set(pruned.linears)
        for name, row in pruned.linears.items():
            shape = json.loads(file.metadata()[name])
            mask = np.unpackbits(file.get_tensor(name))[: math.prod(shape)].reshape(shape).astype(bool)
            np.testing.assert_array_equal(mask, model.get_submodule(name).weight.detach().numpy() != 0)
            assert mask.sum() == row["kept"]


def test_plan_adds_up(pruned):
    plan = plan_content(pruned)
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
    plan = plan_content(run(make_llava(), calibration(toys("tp"), 2), WANDA))
    assert all("diversity" not in row and "cosine" not in row for row in plan["linears"].values())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), object()])
def test_what_is_no_json_leaves_nothing_and_harms_nothing(tmp_path, bad):
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "a.json", {"x": [1, bad]})
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "a.json", {"x": bad})
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
