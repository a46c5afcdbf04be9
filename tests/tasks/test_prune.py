"""A recipe with a `towers` section, from the YAML file to the run folder."""

import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from safetensors import safe_open

from tamp_lightning.cli.parsing import parse
from tamp_lightning.config.recipe_file import UsageError
from tamp_lightning.tasks.prune import run_prune
from tamp_lightning.tasks.prune_setup import prepare

RECIPE = """
task: prune
model: {{checkpoint: {folder}/model, dtype: float32}}
method: {{sparsity: 0.5, tokens: all, allocation: uniform}}
towers:
  sparsity: 0.25
  exclude: [multi_modal_projector]
calibration: {{source: llava_json, path: {folder}/data.json, samples: 2, batch_size: 1}}
scores: {{benchmarks: none}}
out: {folder}/run
trainer: {{accelerator: cpu, enable_progress_bar: false}}
"""


@pytest.fixture
def recipe(bed, processor, tmp_path):
    bed.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    noise = np.random.default_rng(0)
    rows = []
    for number in range(2):
        picture = noise.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
        turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "a circle"}]
        rows.append({"id": str(number), "image": f"{number}.png", "conversations": turns})
    (tmp_path / "data.json").write_text(json.dumps(rows))
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path))
    return tmp_path / "recipe.yaml"


def test_the_run_folder_tells_decoder_and_towers_apart(recipe):
    parsed, path, text = parse(str(recipe), [])
    console = Console(record=True, width=200)
    out = run_prune(prepare(parsed, path.stem, text), console)
    run, plan = (json.loads((out / f"{name}.json").read_text()) for name in ("run", "plan"))
    assert run["sparsity"] == plan["sparsity"] == 0.5
    assert run["linears"] == len(plan["linears"]) == 21
    assert run["towers"]["linears"] == len(plan["towers"]) == 12
    assert run["towers"]["sparsity"] == plan["towers_sparsity"] == pytest.approx(0.25, abs=1e-3)
    assert run["towers"]["prunable_weights"] == sum(row["size"] for row in plan["towers"].values())
    assert run["towers_unreached"] == []
    assert "towers: sparsity 25.0 % of 3,584 weights in 12 linears" in console.export_text()
    with safe_open(out / "masks.safetensors", "np") as file:
        assert set(file.keys()) == {*plan["linears"], *plan["towers"]}
        for name, row in (plan["linears"] | plan["towers"]).items():
            assert json.loads(file.metadata()[name]) == row["shape"]
            assert np.unpackbits(file.get_tensor(name)).sum() == row["kept"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--towers.sparsity=1", r"towers\.sparsity is 1\.0; it has to be at least 0"),
        ("--towers.sparsity=0", r"towers\.exclude is given, but towers\.sparsity is 0"),
        ("--towers.sparcity=0.1", "unknown key --towers.sparcity .*did you mean '--towers.sparsity'"),
        ("--towers.include=mlp", r"--towers\.include is 'mlp', expected a list"),
        ("--method.pattern=2:4", r"towers\.sparsity is 0\.25; pattern '2:4' removes 0\.5"),
    ],
)
def test_bad_values_end_in_one_line(recipe, override, message):
    with pytest.raises(UsageError, match=message) as error:
        parse(str(recipe), [override])
    assert "\n" not in str(error.value)
