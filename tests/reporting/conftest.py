"""Finished runs of tiny random models, made by the command line once."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamp_lightning.cli import main as cli

from ..fixtures.media import save_clip, save_sound
from ..models.videollama2.conftest import assemble, make_tokenizer, tiny_config
from ..models.videollama2.test_processor import Videollama2Processor

QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
EVIL = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"


def tamp(*args: str) -> str:
    """What the command prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        cli.main(args)
    return out.getvalue()


@pytest.fixture(scope="session")
def tiny(bed, processor, tmp_path_factory):
    """The tiny LLaVA-NeXT as a checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-llava-next"
    bed.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_run(tiny, tmp_path_factory) -> Callable[..., tuple[Path, str]]:
    """Prunes the tiny model; gives the run folder and what was printed."""
    parent = tmp_path_factory.mktemp("runs")

    def make(name: str, recipe: str, *overrides: str) -> tuple[Path, str]:
        fixed = [
            f"--model.checkpoint={tiny}",
            "--calibration.samples=4",
            "--scores.split=selection",
            "--scores.slice=demo",
            *QUIET,
        ]
        return parent / name, tamp("run", recipe, *fixed, f"--out={parent / name}", *overrides)

    return make


@pytest.fixture(scope="session")
def tamp_run(make_run):
    return make_run("tamp", "llava_next_tamp")


@pytest.fixture(scope="session")
def wanda_run(make_run):
    return make_run("wanda", "wanda", "--method.sparsity=0.3")


@pytest.fixture(scope="session")
def video_run(tmp_path_factory):
    """A run of the tiny VideoLLaMA2 on two clips with sound and one sound; nothing is scored."""
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("video")
    checkpoint = assemble(folder / "tiny-videollama2")
    Videollama2Processor(make_tokenizer(), **Videollama2Processor.sizes(tiny_config(), 1.0)).save_pretrained(checkpoint)
    rows = []
    for name, kind in (("a.mp4", "video"), ("b.mp4", "video"), ("c.wav", "audio")):
        if kind == "video":
            save_clip(folder / "media" / name, sound=True)
        else:
            save_sound(folder / "media" / name)
        turns = [{"from": "human", "value": f"<{kind}>\nwhat?"}, {"from": "gpt", "value": "a tone"}]
        rows.append({kind: name, "conversations": turns})
    (folder / "rows.json").write_text(json.dumps(rows))
    data = [f"--calibration.path={folder / 'rows.json'}", f"--calibration.media={folder / 'media'}"]
    fixed = [f"--model.checkpoint={checkpoint}", "--model.dtype=float32", "--calibration.samples=3", *QUIET]
    tamp("run", "videollama2_7b_tamp", *fixed, *data, "--scores.benchmarks=none", f"--out={folder / 'run'}")
    return folder / "run"


@pytest.fixture
def hostile(tamp_run, tmp_path):
    """A run whose every text tries to be markup."""
    folder = tmp_path / "run"
    shutil.copytree(tamp_run[0], folder, ignore=shutil.ignore_patterns("model"))
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    for row in rows:
        row |= dict.fromkeys(("question", "answer", "dense", "pruned"), EVIL)
        row |= {"dense_score": 1.0, "pruned_score": 0.0}
    pq.write_table(pa.Table.from_pylist(rows), folder / "predictions.parquet")
    for name in ("run", "examples", "metrics", "plan"):
        content = json.loads((folder / f"{name}.json").read_text())
        (folder / f"{name}.json").write_text(json.dumps(_poisoned(content, name)))
    recipe = (folder / "recipe.yaml").read_text()
    lines = [f"  checkpoint: {json.dumps(EVIL)}" if "checkpoint:" in line else line for line in recipe.splitlines()]
    (folder / "recipe.yaml").write_text("\n".join(lines))
    return folder


def _poisoned(content: dict, name: str) -> dict:
    if name == "run":
        return {key: EVIL if isinstance(value, str) else value for key, value in content.items()}
    if name == "examples":
        content["samples"] = [{**sample, "text": EVIL} for sample in content["samples"]]
        content["pictures"] = dict.fromkeys(content["pictures"], '"><script>1</script>')
    if name == "plan":
        content["linears"] = {f"{key}{EVIL}": row for key, row in content["linears"].items()}
    return content
