"""A tiny checkpoint with calibration files, for runs of several processes."""

import json
from pathlib import Path

import pytest
from PIL import Image

WORDS = "what colour is the shape Is there a circle in image not present yes no"


def rows(folder: Path, count: int) -> list[dict]:
    """Conversations of different lengths, every third without a picture."""
    words = WORDS.split()
    found = []
    for k in range(count):
        question = " ".join(words[(5 * k + j) % len(words)] for j in range(4 + 3 * (k % 4)))
        row = {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": words[-1 - k % 2]}]}
        if k % 3 != 2:
            Image.new("RGB", (64, 64), (40 * k % 256, 200, 17 * k % 256)).save(folder / f"{k}.png")
            row["image"] = f"{k}.png"
            row["conversations"][0]["value"] = f"<image>\n{question}"
        found.append(row)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory, bed, processor) -> Path:
    """A folder with a tiny checkpoint and calibration files of 4, 5 and 20 samples."""
    folder = tmp_path_factory.mktemp("processes")
    bed.save_pretrained(folder / "checkpoint", max_shard_size="20KB")
    processor.save_pretrained(folder / "checkpoint")
    for count in (4, 5, 20):
        (folder / f"{count}.json").write_text(json.dumps(rows(folder, count)))
    return folder
