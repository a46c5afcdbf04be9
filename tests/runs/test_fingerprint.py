"""What a continued run shares with the one it continues."""

import os
from hashlib import sha256

import pytest
import torch

from tamp_lightning.runs.fingerprint import fingerprint

CPU = torch.device("cpu")


@pytest.fixture
def source(tmp_path):
    header = b'{"a": 1}'
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"weights")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("of no matter")
    return tmp_path


def test_small_files_count_by_their_bytes_and_weights_by_header_size_and_time(source):
    found = fingerprint(source, {"seed": 1}, None, CPU)
    assert set(found["source"]) == {"model.safetensors", "config.json"}
    assert found["source"]["config.json"] == sha256(b"{}").hexdigest()
    weights = found["source"]["model.safetensors"]
    assert (weights["bytes"], weights["header"]) == (8 + 8 + 7, sha256(b'{"a": 1}').hexdigest())
    assert found["settings"] == {"seed": 1}
    assert found["compute"] == {"dtype": "auto", "device": "cpu", "processes": 1}


@pytest.mark.parametrize("change", ["config", "header", "time", "dtype", "processes", "settings"])
def test_whatever_may_change_bits_changes_it(source, change):
    given = {"settings": {"seed": 1}, "dtype": None, "device": CPU, "processes": 1}
    before = fingerprint(source, **given)
    assert fingerprint(source, **given) == before
    file = source / "model.safetensors"
    if change == "config":
        (source / "config.json").write_text('{"x": 1}')
    elif change == "header":
        file.write_bytes(file.read_bytes().replace(b"1", b"2"))
    elif change == "time":
        os.utime(file, (1, 1))
    else:
        given[change] = {"dtype": torch.float32, "processes": 2, "settings": {"seed": 2}}[change]
    assert fingerprint(source, **given) != before
