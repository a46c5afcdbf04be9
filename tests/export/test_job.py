"""`tamp export`: refusals in one line that leave nothing behind, and taking up what was killed."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from tamp_lightning.cli.main import main
from tamp_lightning.export import job
from tamp_lightning.export.job import Source, to_bitmask

from ..stream.conftest import make_llama, save
from .conftest import NO_CARDS, bitmask, pruned_run, weight_files, write_masks


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        main(["export", *map(str, arguments)])
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_there_and_back(run, tmp_path, capsys):
    main(["export", str(run), "--format", "bitmask", "--out", str(tmp_path / "small")])
    assert re.search(r"21 linears: .* MB became .* MB \(5\d\.\d\d %\)", capsys.readouterr().out)
    main(["export", str(tmp_path / "small"), "--format=dense", "--out", str(tmp_path / "back")])
    assert weight_files(tmp_path / "back") == weight_files(run / "model")
    assert names(tmp_path) == ["back", "run", "run-dense", "small"]


def test_nothing_sparse(tmp_path, capsys):
    plain = save(make_llama(), tmp_path / "plain", sharded=True)
    assert "is dense: no linear has enough zeros" in refused(capsys, plain, "--format=bitmask", "--out", tmp_path / "x")
    assert names(tmp_path) == ["plain"]


def test_masks_of_another_model(run, tmp_path, capsys):
    other = pruned_run(tmp_path / "other", make_llama())
    shutil.copy(other / "masks.safetensors", run / "masks.safetensors")
    assert "is of another model" in refused(capsys, run, "--format=bitmask", "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "x.partial").exists()


def test_masks_of_another_run(run, tmp_path, capsys):
    linears = {n: torch.rand(s) < 0.5 for n, s in shapes(run).items()}
    write_masks(run, linears)
    line = refused(capsys, run, "--format=bitmask", "--out", tmp_path / "x")
    assert re.search(r"does not belong to this checkpoint: \d+ weights of \S+ that it masks are not zero", line)
    assert "x" not in " ".join(names(tmp_path))


def test_masks_of_another_shape(run, tmp_path, capsys):
    write_masks(run, {n: torch.ones(s[0], s[1] + 1).bool() for n, s in shapes(run).items()})
    assert "is of another model: its mask of" in refused(capsys, run, "--format=bitmask", "--out", tmp_path / "x")


def shapes(run):
    tensors = load_file(run / "model/model.safetensors")
    return {k.removesuffix(".weight"): v.shape for k, v in tensors.items() if "language_model" in k and "_proj" in k}


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_file(tmp_path, capsys, damage):
    small = bitmask(pruned_run(tmp_path / "run", sharded=True), tmp_path / "small")
    file = sorted(small.glob("*.safetensors"))[-1]
    content = bytearray(file.read_bytes())
    content[len(content) - 8] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flip" else content[:-50])
    line = refused(capsys, small, "--format=dense", "--out", tmp_path / "x")
    assert file.name in line
    assert ("is damaged" in line) == (damage == "flip")
    assert names(tmp_path) == ["run", "run-dense", "small"]


@pytest.mark.parametrize(("key", "value"), [("version", 7), ("version", None), ("files", {}), ("files", [])])
def test_another_layout(run, tmp_path, capsys, key, value):
    small = bitmask(run, tmp_path / "small")
    config = json.loads((small / "config.json").read_text())
    config["quantization_config"][key] = value
    (small / "config.json").write_text(json.dumps(config))
    line = refused(capsys, small, "--format=dense", "--out", tmp_path / "x")
    assert ("reads 1" if key == "version" else "lists no files") in line


def test_a_file_whose_header_was_made_by_somebody_else(run, tmp_path, capsys):
    small = bitmask(run, tmp_path / "small")
    file = small / "model.safetensors"
    save_file(load_file(file), file, metadata={"format": "pt", "tamp_bitmask.version": "1"})
    config = json.loads((small / "config.json").read_text())
    config["quantization_config"]["files"] = {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    (small / "config.json").write_text(json.dumps(config))
    line = refused(capsys, small, "--format=dense", "--out", tmp_path / "x")
    assert "has no valid tamp_bitmask.dense_header" in line


def test_taken_folders_and_wrong_forms(run, tmp_path, capsys):
    small, model = bitmask(run, tmp_path / "small"), run / "model"
    assert "exists and is not empty" in refused(capsys, run, "--format=bitmask", "--out", small)
    assert "in the bitmask form already" in refused(capsys, small, "--format=bitmask", "--out", tmp_path / "x")
    assert "a plain checkpoint already" in refused(capsys, model, "--format=dense", "--out", tmp_path / "x")
    assert "expected bitmask or dense" in refused(capsys, run, "--format=zip", "--out", tmp_path / "x")
    (tmp_path / "y.partial").mkdir()
    (tmp_path / "y.partial/mine.txt").write_text("keep")
    assert "in the way" in refused(capsys, run, "--format=bitmask", "--out", tmp_path / "y")
    assert (tmp_path / "y.partial/mine.txt").read_text() == "keep"
    assert not (tmp_path / "x").exists()


def test_pruning_and_inspecting_the_form_say_what_to_do(run, tmp_path, capsys):
    small = bitmask(run, tmp_path / "small")
    with pytest.raises(SystemExit) as exit_:
        main(["inspect", str(small)])
    assert exit_.value.code == 2
    line = " ".join(capsys.readouterr().err.split())
    assert "--format dense --out NEW" in line
    assert re.search(r"version 1: 21 linears with the checkpoint's own values, \d\d\.\d\d bits a weight", line)


SLOW_EXPORT = """
import sys, time
from pathlib import Path
from tamp_lightning.export import job
compress = job.compress
def slowly(source, out, *rest):
    sizes = compress(source, out, *rest)
    print(out.name, flush=True)
    time.sleep(60 if done else 0)
    done.append(out.name)
    return sizes
done = []
job.compress = slowly
job.to_bitmask(job.Source.find(Path(sys.argv[1])), Path(sys.argv[2]), lambda *_: {})
"""


def test_a_killed_export_goes_on(tmp_path, monkeypatch):
    run, out = pruned_run(tmp_path / "run", sharded=True), tmp_path / "small"
    command = [sys.executable, "-c", SLOW_EXPORT, str(run), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(2):
            process.stdout.readline()
        process.kill()
    partial = tmp_path / "small.partial"
    assert not out.exists()
    finished = json.loads((partial / "export.json").read_text())["files"]
    assert len(finished) == 1
    (partial / "half.tmp").write_text("left by the kill")
    written = []
    compress = job.compress
    monkeypatch.setattr(job, "compress", lambda s, out, *rest: written.append(out.name) or compress(s, out, *rest))
    sizes = to_bitmask(Source.find(run), out, NO_CARDS)
    assert not set(finished) & set(written)
    assert len(written) == len(Source.find(run).reader.shards) - 1
    monkeypatch.undo()
    whole = bitmask(run, tmp_path / "whole")
    assert weight_files(out) == weight_files(whole)
    assert names(out) == names(whole)
    assert sizes.linears == 21
    assert not partial.exists()


def test_a_finished_shard_that_was_damaged_since_is_written_again(tmp_path, monkeypatch):
    run, out = pruned_run(tmp_path / "run", sharded=True), tmp_path / "small"
    interrupt_after(2, monkeypatch, run, out)
    first = sorted((tmp_path / "small.partial").glob("*.safetensors"))[0]
    first.write_bytes(first.read_bytes()[:-1])
    assert weight_files(bitmask(run, out)) == weight_files(bitmask(run, tmp_path / "whole"))


def test_only_the_same_export_goes_on(tmp_path, monkeypatch, capsys):
    run, out = pruned_run(tmp_path / "run", sharded=True), tmp_path / "small"
    interrupt_after(1, monkeypatch, run, out)
    later = (run / "masks.safetensors").stat().st_mtime_ns + 1_000_000
    os.utime(run / "masks.safetensors", ns=(later, later))
    assert "files of the source differs" in refused(capsys, run, "--format=bitmask", "--out", out)
    assert (tmp_path / "small.partial").is_dir()


def interrupt_after(shards, monkeypatch, run, out):
    compress, done = job.compress, []

    def until(source, *rest):
        if len(done) == shards:
            raise KeyboardInterrupt
        done.append(source)
        return compress(source, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(job, "compress", until)
        with pytest.raises(KeyboardInterrupt):
            to_bitmask(Source.find(run), out, NO_CARDS)
