"""Real small files, written here."""

import builtins
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tamp_lightning.models.videollama2 import media
from tamp_lightning.models.videollama2.frames import sample_frames

av = pytest.importorskip("av")

FRAMES, FPS = 40, 10
TONE = 440.0


def tone(rate: int, seconds: float) -> np.ndarray:
    return 0.5 * np.sin(2 * math.pi * TONE * np.arange(int(rate * seconds)) / rate)


def write_video(path: Path, sound: bool = True, frames: int = FRAMES) -> Path:
    """Grey frames, each six levels brighter than the one before, and a tone at 44.1 kHz in stereo."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 2_000_000
        heard = container.add_stream("aac", rate=44100, layout="stereo") if sound else None
        for k in range(frames):
            picture = np.full((64, 64, 3), 6 * k, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
        if heard is not None:
            both = np.tile(tone(44100, frames / FPS).astype(np.float32), (2, 1))
            for start in range(0, both.shape[1], 1024):
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(both[:, start : start + 1024]), format="fltp", layout="stereo"
                )
                frame.sample_rate, frame.pts = 44100, start
                container.mux(heard.encode(frame))
            container.mux(heard.encode())
    return path


def write_wav(path: Path, rate: int, left: np.ndarray, right: np.ndarray | None = None) -> Path:
    with av.open(str(path), "w") as container:
        layout = "mono" if right is None else "stereo"
        stream = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        rows = left[None] if right is None else np.stack([left, right], axis=1).reshape(1, -1)
        samples = np.ascontiguousarray(np.round(rows * 32767).astype(np.int16))
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("media") / "clip.mp4")


def levels(frames: list[Image.Image]) -> list[int]:
    return [round(float(np.asarray(frame).mean()) / 6) for frame in frames]


def test_the_right_frames_are_read(video):
    assert levels(media.read_video(video, 16)) == sample_frames(FRAMES, 16)
    assert levels(media.read_video(video, 4, start=1.0, end=2.0)) == [9 + k for k in sample_frames(11, 4)]


def test_a_folder_of_pictures_is_a_video(tmp_path):
    for k in range(12):
        Image.new("RGB", (8, 8), (6 * k,) * 3).save(tmp_path / f"{k:03d}.png")
    assert levels(media.read_video(tmp_path, 4)) == sample_frames(12, 4)
    assert levels(media.read_video(tmp_path, 3, start=1.0, end=2.0)) == [2 + k for k in sample_frames(4, 3)]


def test_sound_of_a_video_is_mono_at_16_khz(video):
    found = media.read_sound_of_video(video)
    assert len(found) == pytest.approx(16000 * FRAMES / FPS, abs=2100)  # the codec pads
    middle = found[20000:36000]
    spectrum = torch.fft.rfft(middle).abs()
    assert int(spectrum.argmax()) == TONE
    assert float(middle.abs().max()) == pytest.approx(0.5, abs=0.05)


def test_a_video_without_sound(tmp_path):
    assert media.read_sound_of_video(write_video(tmp_path / "mute.mp4", sound=False, frames=5)) is None
    assert media.read_sound_of_video(tmp_path) is None


@pytest.mark.parametrize("stereo", [False, True])
def test_first_channel_of_a_sound_file(tmp_path, stereo):
    left = tone(22050, 0.25)
    path = write_wav(tmp_path / "a.wav", 22050, left, np.zeros_like(left) if stereo else None)
    samples, rate = media.read_sound(path)
    assert rate == 22050
    assert np.allclose(samples, left, atol=1e-4)


@pytest.mark.parametrize("read", [media.read_sound, media.read_sound_of_video, lambda p: media.read_video(p, 4)])
def test_bad_files_are_named_in_one_line(tmp_path, read):
    garbage, empty = tmp_path / "garbage.mp4", tmp_path / "empty.wav"
    garbage.write_bytes(bytes(range(256)) * 40)
    empty.touch()
    for path, message in (
        (garbage, "is damaged or no"),
        (empty, "is empty"),
        (tmp_path / "none.mp4", "does not exist"),
    ):
        with pytest.raises(ValueError, match=f"{path.name} {message}") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_truncated_video_is_refused(video, tmp_path):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"cut.mp4 is damaged"):
        media.read_video(cut, 4)


def test_a_video_whose_middle_is_overwritten_is_refused(video, tmp_path):
    content = bytearray(video.read_bytes())
    third = len(content) // 3
    content[third // 4 : 2 * third] = b"\xff" * (2 * third - third // 4)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad.mp4 is damaged"):
        media.read_video(bad, 4)


def test_files_without_what_is_asked_for(tmp_path, video):
    wav = write_wav(tmp_path / "a.wav", 16000, tone(16000, 0.1))
    with pytest.raises(ValueError, match=r"a.wav has no video track"):
        media.read_video(wav, 4)
    with pytest.raises(ValueError, match=r"mute.mp4 has no audio track"):
        media.read_sound(write_video(tmp_path / "mute.mp4", sound=False, frames=5))
    with pytest.raises(ValueError, match=r"clip.mp4: 50 to 60 seconds hold no frame"):
        media.read_video(video, 4, start=50, end=60)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="nothing has no frames"):
        media.read_video(tmp_path / "nothing", 4)
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"x.png cannot be read as a picture"):
        media.read_image(tmp_path / "x.png")


def test_without_pyav_the_remedy_is_named(monkeypatch, video):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "av":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tamp-lightning\[video\]'"):
        media.read_video(video, 4)
