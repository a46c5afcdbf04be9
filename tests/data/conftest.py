"""Conversations with and without pictures, in files."""

import json

import pytest
from PIL import Image as Pictures


def paint(number):
    return Pictures.new("RGB", (64, 64), (number, 2 * number % 256, 7))


def llava_file(folder, rows, name="calibration.json"):
    path = folder / name
    lines = "\n".join(json.dumps(row) for row in rows)
    path.write_text(lines if name.endswith("l") else json.dumps(rows))
    return path


@pytest.fixture
def rows(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    for n in (1, 2, 3):
        paint(n).save(media / f"{n}.png")
    paint(3).convert("P").save(media / "palette.png")
    return [
        {"image": "1.png", "conversations": [{"from": "human", "value": "<image>\nwhat?"}]},
        {"conversations": [{"from": "system", "value": "be kind"}, {"from": "user", "value": "hello"}]},
        {"image": ["2.png", "3.png"],
         "conversations": [{"from": "human", "value": "<image> or <image>?"}, {"from": "gpt", "value": "b"}]},
        {"image": "palette.png", "conversations": [{"from": "human", "value": "see\n<image>"}]},
    ]  # fmt: skip
