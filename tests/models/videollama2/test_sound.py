import math

import numpy as np
import pytest
import torch

from tamp_lightning.models.videollama2 import sound

from .conftest import GOLDENS


def test_filter_banks_equal_those_of_torchaudio():
    """fbank.npz holds one second of sweep, noise and silence, and what torchaudio 2.11 makes of it in float32."""
    with np.load(GOLDENS / "fbank.npz") as file:
        samples, expected = torch.from_numpy(file["samples"] / 2**15), torch.from_numpy(file["fbank"])
    found = sound.fbank(samples)
    assert found.shape == expected.shape == (sound.fbank_frames(16000), 128)
    assert (found == expected.bfloat16().float()).float().mean() > 0.999
    assert torch.allclose(found, expected, atol=0, rtol=2**-7)


def test_silence_is_the_floor():
    floor = torch.tensor(math.log(2.0**-23)).bfloat16().float()
    assert bool((sound.fbank(torch.zeros(4000)) == floor).all())


def test_clips_of_a_video():
    """Twelve seconds: clips start every (12 - 2) / 8 seconds."""
    assert sound.clip_starts(12.0) == [0.0, 1.25, 2.5, 3.75, 5.0, 6.25, 7.5, 8.75]
    ramp = torch.arange(12 * 16000, dtype=torch.float64)
    heard = sound.video_sound(ramp)
    assert heard.shape == (16 * 16000,)
    assert heard[::32000].tolist() == [0, 20000, 40000, 60000, 80000, 100000, 120000, 140000]
    assert torch.equal(sound.video_sound(ramp[:16000]), ramp[:16000].repeat(8))


def test_long_sound_keeps_its_middle_and_short_sound_gets_silence():
    assert sound.fit(torch.arange(10), 4).tolist() == [3, 4, 5, 6]
    assert sound.fit(torch.arange(3), 5).tolist() == [0, 1, 2, 0, 0]


@pytest.mark.parametrize(("rate", "seconds"), [(8000, 1.0), (44100, 1.0), (22050, 0.5), (16000, 1.0)])
def test_resampling_keeps_a_tone(rate, seconds):
    """440 Hz fits a whole number of times, so cutting or padding the spectrum is exact."""
    tone = torch.sin(2 * math.pi * 440 * torch.arange(int(rate * seconds), dtype=torch.float64) / rate)
    length = int(16000 * seconds)
    expected = torch.sin(2 * math.pi * 440 * torch.arange(length, dtype=torch.float64) / 16000)
    assert torch.allclose(sound.file_sound(tone, rate, seconds), expected, atol=1e-9)


def test_the_highest_frequency_is_shared_by_two_bins():
    """From 4 samples at their highest frequency to 8: the cosine between them."""
    found = sound.resample(torch.tensor([1.0, -1.0, 1.0, -1.0]), 8)
    assert torch.allclose(found, torch.cos(torch.arange(8) * math.pi / 2), atol=1e-6)
    assert torch.allclose(sound.resample(found, 4), torch.tensor([1.0, -1.0, 1.0, -1.0]), atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (torch.zeros(0), "x must be one non-empty row"),
        (torch.zeros(2, 5), r"got shape \(2, 5\)"),
        (torch.tensor([math.nan]), "finite samples"),
        (torch.tensor([300.0]), "samples up to 300, but they must lie in -1..1"),
    ],
)
def test_samples_that_cannot_be_sound_are_refused(samples, message):
    with pytest.raises(ValueError, match=message):
        sound.check_samples(samples, "x")
