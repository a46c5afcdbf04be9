"""Files are complete under their names, or not there."""

import json

import pytest

from tamp_lightning.files import atomic_write, write_bytes, write_json, write_text


def test_a_file_is_new_only_when_all_is_written(tmp_path):
    path = tmp_path / "deep" / "plan.json"
    write_text(path, "old")
    with atomic_write(path) as scratch:
        scratch.write_text("new")
        assert path.read_text() == "old"
        assert scratch.parent == path.parent
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def interrupted_write(path):
    with atomic_write(path) as scratch:
        scratch.write_text("half")
        raise KeyboardInterrupt


def test_an_interrupted_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "run.json"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt):
        interrupted_write(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named(tmp_path):
    with (
        pytest.raises(OSError, match=r"cannot write .*table\.csv: No space left"),
        atomic_write(tmp_path / "table.csv"),
    ):
        raise OSError(28, "No space left on device")


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"kl": float("nan")})
    assert not list(tmp_path.iterdir())


def test_what_is_written(tmp_path):
    write_text(tmp_path / "a", "Größe\r\n")
    write_bytes(tmp_path / "b", b"\x00\xff")
    write_json(tmp_path / "c", {"z": 1, "a": [0.5]})
    assert (tmp_path / "a").read_bytes() == "Größe\r\n".encode()
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"
    assert (tmp_path / "c").read_text() == '{\n "z": 1,\n "a": [\n  0.5\n ]\n}\n'
    assert json.loads((tmp_path / "c").read_text()) == {"z": 1, "a": [0.5]}
