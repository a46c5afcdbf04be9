"""The real smol-llava-next-2, scored through the public layouts made from easy-VQA's test pictures."""

import pytest
from rich.console import Console

from tamp_lightning.cli.parsing import parse
from tamp_lightning.data import easy_vqa
from tamp_lightning.tasks.evaluate import run_evaluate
from tamp_lightning.testbeds.checkpoints import resolve

pytestmark = pytest.mark.slow
POPE_AND_MMBENCH = "pope: {path: easy-vqa, limit: 60}, mmbench: {path: easy-vqa, limit: 15}"
VQA = "vqav2: {path: easy-vqa, limit: 60}"
ALL_RIGHT = {"pope": 0.85, "vqav2": 0.9, "mmbench": 0.85}


@pytest.fixture(scope="module")
def _bed():
    try:
        resolve("smol-llava-next-2")
        easy_vqa.root()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def scores(out, *more):
    fixed = [f"--out={out}", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", *more]
    found = run_evaluate(parse("evaluate_smol_public", fixed)[0], Console(quiet=True))
    return {row["benchmark"]: row["results"] for row in found}


@pytest.mark.usefixtures("_bed")
def test_generated_replies_are_mostly_right(tmp_path):
    found = scores(tmp_path, "--benchmarks=[pope,vqav2,mmbench]", f"--data={{{POPE_AND_MMBENCH}, {VQA}}}")
    assert found["pope"]["accuracy"] > ALL_RIGHT["pope"]
    assert found["pope"]["unparsed"] < 0.05
    assert found["vqav2"]["score"] > ALL_RIGHT["vqav2"]
    assert found["mmbench"]["circular"] > ALL_RIGHT["mmbench"]
    assert found["mmbench"]["complete"] == 1


@pytest.mark.usefixtures("_bed")
def test_likeliest_replies_are_mostly_right(tmp_path):
    names = "--benchmarks=[pope,mmbench]"
    found = scores(tmp_path, "--answers=likelihood", names, f"--data={{{POPE_AND_MMBENCH}}}")
    assert found["pope"]["accuracy"] > ALL_RIGHT["pope"]
    assert found["mmbench"]["circular"] > ALL_RIGHT["mmbench"]
    assert found["mmbench"]["margin"] > 0
