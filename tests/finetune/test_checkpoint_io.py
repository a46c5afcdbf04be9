"""Checkpoints of a finetuning are whole or not there."""

import pytest
import torch

from tamp_lightning.finetune.checkpoint_io import DirectCheckpointIO


def test_a_checkpoint_comes_back(tmp_path):
    DirectCheckpointIO().save_checkpoint({"state": torch.arange(3)}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt")["state"].tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_fails_half_way_leaves_the_one_before(tmp_path):
    io = DirectCheckpointIO()
    io.save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    with pytest.raises(Exception, match="pickle"):
        io.save_checkpoint({"step": 2, "cannot": lambda: None}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
