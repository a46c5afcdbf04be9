"""Clips as calibration samples; no file is written before a sample is made."""

import random

import pytest

from tamp_lightning.testbeds import clip_samples
from tamp_lightning.testbeds.clip_samples import CLIPS, clip_pool
from tamp_lightning.testbeds.clips import make_clip, questions


@pytest.fixture
def written(monkeypatch):
    """Numbers of the clips whose files were asked for."""
    numbers = []

    def file(clip):
        numbers.append(clip.number)
        return f"{clip.number}.mp4"

    monkeypatch.setattr(clip_samples, "clip_file", file)
    return numbers


def test_conversations_show_the_clip_once_and_ask_its_own_questions(written):
    samples = clip_pool(7, 3).draw(4, 1)
    assert written == []
    sample = samples[2]
    assert (written, sample.videos, sample.images) == ([sample.id], [f"{sample.id}.mp4"], [])
    own = questions(make_clip("calibration", sample.id))
    asked = random.Random(f"7/{sample.id}").sample(own, 3)
    assert [turn["role"] for turn in sample.messages] == ["user", "assistant"] * 3
    assert [turn["content"][-1]["text"] for turn in sample.messages] == [t for q in asked for t in (q.text, q.answer)]
    assert [part["type"] for turn in sample.messages for part in turn["content"]] == ["video", *["text"] * 6]


def test_there_are_so_many(written):
    pool = clip_pool(0, 100)
    assert pool.size == CLIPS
    assert len(pool.make(3).messages) == 2 * len(questions(make_clip("calibration", 3)))
    with pytest.raises(ValueError, match="calibration samples wanted, the clips' calibration split has"):
        pool.draw(CLIPS + 1, 0)
