"""What tells one checkpoint from another."""

import json

import pytest

from tamp_lightning.evaluation import whole
from tamp_lightning.evaluation.whole import CHECKSUMS, answers_folder, checkpoint_sha256, load_processor


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TAMP_ANSWERS", str(tmp_path / "answers"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "weights").write_text("1")
    return tmp_path / "model"


def test_all_bytes_count_but_the_card_and_hidden_files(folder):
    before = checkpoint_sha256(folder)
    (folder / "README.md").write_text("a card")
    (folder / ".cache").write_text("x")
    assert checkpoint_sha256(folder) == before
    (folder / "weights").write_text("2")
    changed = checkpoint_sha256(folder)
    (folder / "weights").rename(folder / "a")  # before config.json
    assert len({before, changed, checkpoint_sha256(folder)}) == 3


def test_what_was_read_once_is_remembered(folder, monkeypatch):
    before = checkpoint_sha256(folder)
    monkeypatch.setattr(whole, "sha256_of", lambda files: "read again")
    assert checkpoint_sha256(folder) == before
    memory = answers_folder() / CHECKSUMS
    memory.write_text(json.dumps({})[:-1])  # cut off
    assert checkpoint_sha256(folder) == "read again"


def test_a_folder_without_files_has_no_checksum(tmp_path):
    assert checkpoint_sha256(tmp_path) == ""


def test_a_folder_without_a_processor_is_refused(folder):
    with pytest.raises(ValueError, match="model holds no processor"):
        load_processor(folder)
