"""From samples to the filter banks BEATs reads: clips, resampling, padding, log mel energies. Torch only."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from tamp_lightning.errors import InputError

SAMPLE_RATE = 16000
MEL_BINS = 128
FRAME_LENGTH, FRAME_SHIFT, FFT_LENGTH = 400, 160, 512  # 25 ms, 10 ms, the next power of two
LOWEST_HZ, HIGHEST_HZ = 20.0, 8000.0
CLIPS, CLIP_SECONDS = 8, 2.0
LOUDEST = 2.0  # codecs overshoot 1 a little; whole numbers of 16 bits do so a lot


def clip_starts(duration: float, seconds: float = CLIP_SECONDS) -> list[float]:
    """Start, in seconds, of the eight clips of (officially) two seconds that stand for a video's sound.

    Clip i starts at i * (duration - 2) / 8, so the last two seconds are never heard. That is the sampler of
    pytorchvideo 0.1.5; its later, unreleased version divides by 7.
    """
    return [k * max(duration - seconds, 0.0) / CLIPS for k in range(CLIPS)]


def video_sound(samples: Tensor, seconds: float = CLIP_SECONDS) -> Tensor:
    """The eight clips of a video's sound, one after the other; sound no longer than one clip comes eight times.

    Args:
        samples: [n] mono at 16 kHz.
        seconds: length of a clip; two officially.

    Returns:
        [at most 8 * seconds * 16000].
    """
    starts = clip_starts(len(samples) / SAMPLE_RATE, seconds)
    return torch.cat([samples[int(s * SAMPLE_RATE) : int((s + seconds) * SAMPLE_RATE)] for s in starts])


def fit(samples: Tensor, length: int) -> Tensor:
    """Cut the middle ``length`` samples out of [n], or append silence.

    The official code cuts at a random place; the middle is chosen here so that a run can be repeated.
    """
    start = max(len(samples) - length, 0) // 2
    cut = samples[start : start + length]
    return F.pad(cut, (0, length - len(cut)))


def resample(samples: Tensor, length: int) -> Tensor:
    """Resample [n] to [length] by cutting or padding its spectrum, as ``scipy.signal.resample`` does."""
    if len(samples) == length:
        return samples
    shorter = min(len(samples), length)
    spectrum = torch.fft.rfft(samples)[: shorter // 2 + 1].clone()
    if shorter % 2 == 0:  # the highest frequency stands for two bins in one of the lengths only
        spectrum[-1] *= 2.0 if length < len(samples) else 0.5
    return torch.fft.irfft(spectrum, n=length) * (length / len(samples))


def file_sound(samples: Tensor, rate: int, seconds: float) -> Tensor:
    """Exactly ``seconds`` of a sound file at 16 kHz: cut or padded at its own ``rate``, then resampled."""
    return resample(fit(samples, round(seconds * rate)), round(seconds * SAMPLE_RATE))


def fbank_frames(samples: int) -> int:
    """Number of filter-bank frames of so many samples; only whole windows count."""
    return 1 + (samples - FRAME_LENGTH) // FRAME_SHIFT


def fbank(samples: Tensor) -> Tensor:
    """Log mel filter banks with Kaldi's definitions: 25 ms Povey windows every 10 ms, 128 triangles on the mel scale.

    Computed in float64 and rounded to bfloat16, as the official input is; dither is off. Some triangles are so narrow
    that no Fourier bin falls into them: they give the floor, as there.

    Args:
        samples: [n] in -1..1 at 16 kHz, at least 400 of them.

    Returns:
        [frames,128] float32.
    """
    frames = samples.double().mul(2**15).unfold(0, FRAME_LENGTH, FRAME_SHIFT)
    frames = frames - frames.mean(1, keepdim=True)
    frames = frames - 0.97 * torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    window = torch.hann_window(FRAME_LENGTH, periodic=False, dtype=torch.float64) ** 0.85
    power = torch.fft.rfft(frames * window, n=FFT_LENGTH).abs().square()
    energies = (power @ _mel_triangles()).clamp(min=torch.finfo(torch.float32).eps)
    return energies.log().to(torch.bfloat16).float()


def silent_patches(banks: Tensor, patch: int) -> Tensor:
    """Which square patches of filter banks hold the floor alone, i.e. come from samples that are all zero.

    Args:
        banks: [B,frames,128] from `fbank`.
        patch: frames and bins per patch; frames that fill none are dropped, as in the audio tower.

    Returns:
        [B,tokens] bool; time runs slowest, frequency fastest.
    """
    floor = fbank(torch.zeros(FRAME_LENGTH)).max()
    squares = banks.unfold(1, patch, patch).unfold(2, patch, patch)  # [B,steps,bands,patch,patch]
    return (squares.amax((3, 4)) <= floor).flatten(1)


def _mel(hertz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hertz / 700.0)


@cache
def _mel_triangles() -> Tensor:
    """[257,128] float64: weight of every Fourier bin in every triangle, straight on the mel scale."""
    low, high = (float(_mel(torch.tensor(f, dtype=torch.float64))) for f in (LOWEST_HZ, HIGHEST_HZ))
    step = (high - low) / (MEL_BINS + 1)
    left = low + step * torch.arange(MEL_BINS, dtype=torch.float64)
    bins = _mel(torch.arange(FFT_LENGTH // 2 + 1, dtype=torch.float64) * (SAMPLE_RATE / FFT_LENGTH))[:, None]
    rising, falling = (bins - left) / step, (left + 2 * step - bins) / step
    return torch.minimum(rising, falling).clamp(min=0.0)


def check_samples(samples: Tensor, name: str) -> Tensor:
    """``samples`` as [n] float64.

    Raises:
        InputError: not one non-empty row of finite numbers in about -1..1.
    """
    samples = samples.double()
    if samples.ndim != 1 or not len(samples) or not bool(torch.isfinite(samples).all()):
        raise InputError(f"{name} must be one non-empty row of finite samples, got shape {tuple(samples.shape)}")
    if (loudest := float(samples.abs().max())) > LOUDEST:
        raise InputError(f"{name} has samples up to {loudest:g}, but they must lie in -1..1: divide by full scale")
    return samples
