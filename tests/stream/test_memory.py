"""A model in memory, as a checkpoint on disk."""

from pathlib import Path

import torch
from transformers import LlavaNextForConditionalGeneration

from tamp_lightning.stream import DiskStream, MemoryStream

from .conftest import make_llava, prune, save


def test_memory_and_disk_agree(tmp_path: Path):
    model = make_llava()
    source = save(model, tmp_path / "source", sharded=True, old=True)
    disk, memory = DiskStream(source, tmp_path / "out"), MemoryStream(model)
    assert disk.facts == memory.facts
    prune(disk)
    prune(memory)
    disk.finish()
    assert memory.finish() == {}
    written = LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "out").state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, written[name])
