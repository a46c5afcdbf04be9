"""Public benchmarks reach VideoLLaMA2's processor, which opens files itself."""

import wave
from dataclasses import replace

import numpy as np
import pytest
import torch

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data.readers.item import Item, Items, Media
from tamp_lightning.evaluation.examples import Examples, LeftCollator, check_accepts
from tamp_lightning.testbeds import clip_layouts

pytest.importorskip("av")


@pytest.fixture
def clips(monkeypatch, tmp_path) -> Items:
    monkeypatch.setenv("TAMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(clip_layouts, "DESIGN", 2)
    return BENCHMARKS["videomme"].read(clip_layouts.write("videomme", tmp_path))


def test_a_video_comes_with_its_sound(processor, clips):
    benchmark = BENCHMARKS["videomme"]
    check_accepts(benchmark, clips, processor, frames_as_pictures=False)
    examples = [Examples(benchmark, clips, [0, 1], processor)[k] for k in range(2)]
    inputs = LeftCollator(processor)(examples)["inputs"]
    [media] = clips.items[0].media
    alone = processor("<video>", videos=[media.content])
    assert torch.equal(inputs["pixel_values_videos"][0], alone["pixel_values_videos"][0])
    assert torch.equal(inputs["input_features"][0], alone["input_features"][0])
    assert inputs["attention_mask"][:, -1].all()
    assert set(inputs["mm_token_type_ids"].flatten().tolist()) == {0, 2, 3}


def test_frames_are_pictures_where_they_are_asked_for(processor, clips):
    example = Examples(BENCHMARKS["videomme"], clips, [0], processor, frames=3, frames_as_pictures=True)[0]
    assert (len(example.images), example.videos) == (3, [])


def test_subtitles_are_of_the_frames_that_the_processor_takes(processor, clips, tmp_path):
    lines = tmp_path / "one.srt"
    lines.write_text("1\n00:00:00,000 --> 00:10:00,000\nspoken\n")
    subtitled = replace(clips, items=[replace(clips.items[0], subtitles=lines)])
    example = Examples(BENCHMARKS["videomme_subtitles"], subtitled, [0], processor)[0]
    assert "spoken" in example.messages[0]["content"][-1]["text"]


def test_a_sound_that_is_no_file_is_resampled(processor, tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes((np.sin(np.arange(8000) / 9) * 9000).astype("<i2").tobytes())
    content = (tmp_path / "a.wav").read_bytes()
    item = Item(id="a", question="", target="cough", options=(), media=(Media("audio", lambda: content),))
    benchmark = BENCHMARKS["vocalsound"]
    example = Examples(benchmark, Items([item], ["row 1"], [], "sha"), [0], processor)[0]
    [samples] = example.sounds
    assert len(samples) == pytest.approx(16000, abs=64)
    assert LeftCollator(processor)([example])["inputs"]["input_features"].shape[0] == 1
