"""Pictures, frames, sounds and subtitles: what is read, and what is refused."""

import sys

import numpy as np
import pytest

from tamp_lightning.data.media import (
    BadMedia,
    middles,
    read_frames,
    read_picture,
    read_sound,
    read_subtitles,
    subtitles_at,
)

from ..fixtures import media


def main_colour(picture):
    pixel = np.asarray(picture)[16, 16] if picture.size == (32, 32) else np.asarray(picture)[4, 4]
    return min(media.COLOURS, key=lambda name: np.abs(np.array(media.COLOURS[name]) - pixel).sum())


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_pictures_of_every_mode_become_rgb(mode, tmp_path):
    media.picture("grey", mode=mode).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert (picture.mode, picture.size) == ("RGB", (24, 18))


def test_picture_from_bytes():
    assert main_colour(read_picture(media.picture_bytes("blue"))) == "blue"


@pytest.mark.parametrize(
    "content", [b"", b"no picture", media.picture_bytes()[:60], media.picture_bytes("red", "JPEG")[:300]]
)
def test_broken_pictures(content, tmp_path):
    (tmp_path / "a.png").write_bytes(content)
    for form in (content, tmp_path / "a.png"):
        with pytest.raises(BadMedia, match="cannot read picture"):
            read_picture(form)


def test_missing_picture(tmp_path):
    with pytest.raises(BadMedia, match=r"cannot read picture .*gone\.png"):
        read_picture(tmp_path / "gone.png")


@pytest.mark.parametrize(("count", "times"), [(1, [1.5]), (3, [0.5, 1.5, 2.5]), (2, [0.75, 2.25])])
def test_middles_of_equal_parts(count, times):
    assert middles(0.0, 3.0, count) == times


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
def test_frames_are_those_shown_at_their_times(ending, tmp_path):
    pytest.importorskip("av")
    media.save_clip(tmp_path / f"a.{ending}")
    frames = read_frames(tmp_path / f"a.{ending}", 3)
    assert [main_colour(p) for p in frames.pictures] == ["red", "green", "blue"]
    assert frames.times == pytest.approx([0.5, 1.5, 2.5], abs=0.1)


def test_every_frame_of_a_clip_can_be_asked_for(tmp_path):
    pytest.importorskip("av")
    media.save_clip(tmp_path / "a.mp4")
    colours = [main_colour(p) for p in read_frames(tmp_path / "a.mp4", 24).pictures]
    assert colours == ["red"] * 8 + ["green"] * 8 + ["blue"] * 8


def test_more_frames_than_there_are(tmp_path):
    pytest.importorskip("av")
    media.save_clip(tmp_path / "a.mp4", ("green",), rate=4)
    assert len(read_frames(tmp_path / "a.mp4", 9).pictures) == 9


@pytest.mark.parametrize(
    ("start", "end", "colours"), [(1.0, 2.0, {"green"}), (2.0, 99.0, {"blue"}), (None, 1.0, {"red"})]
)
def test_part_of_a_video(start, end, colours, tmp_path):
    pytest.importorskip("av")
    media.save_clip(tmp_path / "a.mp4")
    assert {main_colour(p) for p in read_frames(tmp_path / "a.mp4", 3, start, end).pictures} == colours


@pytest.mark.parametrize(("start", "end"), [(5.0, 9.0), (2.0, 1.0)])
def test_part_that_is_not_there(start, end, tmp_path):
    pytest.importorskip("av")
    media.save_clip(tmp_path / "a.mp4")
    with pytest.raises(BadMedia, match=r"a\.mp4 lasts 3\.\d+ s: nothing between"):
        read_frames(tmp_path / "a.mp4", 2, start, end)


def test_folder_of_frames_is_three_a_second(tmp_path):
    for k, colour in enumerate(["red", "red", "red", "blue", "blue", "blue"]):
        media.save_picture(tmp_path / f"{k:05d}.jpg", colour)
    frames = read_frames(tmp_path, 2)
    assert frames.times == [0.5, 1.5]
    assert [main_colour(p) for p in frames.pictures] == ["red", "blue"]
    assert [main_colour(p) for p in read_frames(tmp_path, 1, 1.0, 2.0).pictures] == ["blue"]


def test_folder_without_frames(tmp_path):
    with pytest.raises(BadMedia, match="holds no frames"):
        read_frames(tmp_path, 1)


@pytest.mark.parametrize("harm", ["missing", "text", "cut", "sound"])
def test_broken_videos(harm, tmp_path):
    pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    if harm == "text":
        path.write_text("no video")
    elif harm == "cut":
        media.save_clip(path)
        path.write_bytes(path.read_bytes()[:200])
    elif harm == "sound":
        path = tmp_path / "a.wav"
        media.save_sound(path)
    with pytest.raises(BadMedia, match=r"a\.(mp4|wav)"):
        read_frames(path, 2)


@pytest.mark.parametrize("rate", [16000, 8000, 44100])
def test_sound_is_mono_at_the_rate_asked_for(rate, tmp_path):
    pytest.importorskip("av")
    media.save_sound(tmp_path / "a.wav", 2)
    sound = read_sound(tmp_path / "a.wav", rate)
    assert sound.dtype == np.float32
    assert len(sound) == pytest.approx(2 * rate, rel=0.01)
    loudest = np.fft.rfftfreq(len(sound), 1 / rate)[np.abs(np.fft.rfft(sound)).argmax()]
    assert loudest == pytest.approx(440, abs=2)
    assert 0.45 < np.abs(sound).max() < 0.6
    assert np.array_equal(read_sound((tmp_path / "a.wav").read_bytes(), rate), sound)


def test_sound_of_a_video_and_of_a_silent_one(tmp_path):
    pytest.importorskip("av")
    media.save_clip(tmp_path / "loud.mp4", sound=True)
    media.save_clip(tmp_path / "mute.mp4")
    assert len(read_sound(tmp_path / "loud.mp4", 16000)) > 40000
    with pytest.raises(BadMedia, match=r"mute\.mp4 has no sound"):
        read_sound(tmp_path / "mute.mp4", 16000)


def test_without_pyav_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(FileNotFoundError, match=r"needs PyAV: pip install 'tamp-lightning\[video\]'"):
        read_frames(tmp_path / "a.mp4", 1)


def test_subtitles_at_times(tmp_path):
    media.save_subtitles(tmp_path / "a.srt")
    lines = read_subtitles(tmp_path / "a.srt")
    assert [tuple(line) for line in lines] == [(0.0, 1.0, "It is red indeed"), (2.0, 3.5, "and now blue")]
    assert subtitles_at(lines, [0.5, 1.5, 3.4]) == "It is red indeed\nand now blue"
    assert subtitles_at(lines, [1.0, 9.0]) == ""


def test_subtitles_that_are_no_text(tmp_path):
    (tmp_path / "a.srt").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(BadMedia, match=r"cannot read subtitles .*a\.srt"):
        read_subtitles(tmp_path / "a.srt")
