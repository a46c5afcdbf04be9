"""Procedural clips: the same every time, balanced, and what their files hold is what was drawn and played."""

from collections import Counter

import numpy as np
import pytest

from tamp_lightning.models.videollama2.media import read_sound_of_video, read_video
from tamp_lightning.testbeds.clip_files import FPS, PALETTE, RATE, SIDE, draw, frame_count, waveform, write_clip
from tamp_lightning.testbeds.clips import CHANGES, COLOURS, DESIGN, LENGTHS, SHAPES, SOUNDS, make_clip, questions

CLIPS = [make_clip("test", number) for number in range(DESIGN)]
GOLDEN = [
    ("star", "left", ("green", "red"), ("noise", "hum"), "short", 0.625),
    ("cross", "up", ("blue", "yellow"), ("bell", "organ"), "short", 0.625),
]
CHANGING = next(c for c in CLIPS if c.colours[0] != c.colours[1] and c.sounds[0] != c.sounds[1])


def test_a_clip_is_the_same_every_time_and_another_in_every_split():
    assert [make_clip("test", number) for number in range(DESIGN)] == CLIPS
    assert [questions(c) for c in CLIPS] == [questions(make_clip("test", c.number)) for c in CLIPS]
    first = make_clip("test", 0)
    assert np.array_equal(np.asarray(draw(first, 3)), np.asarray(draw(CLIPS[0], 3)))
    assert np.array_equal(waveform(first), waveform(CLIPS[0]))
    for other in ("train", "calibration", "selection"):
        assert any(make_clip(other, c.number).shape != c.shape for c in CLIPS[:16])
        assert not np.array_equal(waveform(make_clip(other, 0))[:2000], waveform(first)[:2000])


def test_labels_of_the_first_clips_have_not_changed():
    """The shipped towers and all published figures belong to these."""
    assert [(c.shape, c.motion, c.colours, c.sounds, c.length, c.change) for c in CLIPS[12:14]] == GOLDEN


def test_answers_are_balanced_over_a_design():
    asked = [q for clip in CLIPS for q in questions(clip)]
    for kind in {q.kind for q in asked} - {"both"}:
        counts = Counter(q.answer for q in asked if q.kind == kind)
        assert len(counts) == 4
        assert len(set(counts.values())) == 1, kind
    mixed = [q for q in asked if q.kind == "both"]
    words = [Counter(q.answer.split()[k] for q in mixed) for k in (0, 1)]
    assert [sorted(c) for c in words] == [sorted(SHAPES), sorted(SOUNDS)]
    assert {n for c in words for n in c.values()} == {len(mixed) // 4}
    assert Counter(q.category for q in asked) == {"vision": 120, "sound": 24, "both": 24, "order": 96}
    assert Counter(c.length for c in CLIPS) == dict.fromkeys(LENGTHS, DESIGN // 3)


def test_options_hold_the_answer_once_and_their_order_tells_nothing():
    asked = [q for number in range(4 * DESIGN) for q in questions(make_clip("test", number))]
    assert all(len(set(q.options)) == 4 and q.options.count(q.answer) == 1 for q in asked)
    assert len({q.id for q in asked}) == len(asked)
    places = Counter(q.options.index(q.answer) for q in asked)
    assert all(0.2 < n / len(asked) < 0.3 for n in places.values())


def test_neither_sight_nor_hearing_alone_tells_a_mixed_answer():
    for q in (q for clip in CLIPS for q in questions(clip) if q.kind == "both"):
        shape, sound = q.answer.split()
        assert sum(option.startswith(f"{shape} ") for option in q.options) == 2
        assert sum(option.endswith(f" {sound}") for option in q.options) == 2
        assert q.hears


def test_questions_fit_what_changes():
    for clip in CLIPS:
        kinds = {q.kind for q in questions(clip)}
        assert ("colour" in kinds) == (clip.colours[0] == clip.colours[1]) == ("colour_first" not in kinds)
        assert ("sound" in kinds) == (clip.sounds[0] == clip.sounds[1]) == ("sound_last" not in kinds)
        for q in questions(clip):
            assert q.hears == (q.kind in ("sound", "sound_first", "sound_last", "both"))


def near(picture):
    """The named colour nearest the colour furthest from the background."""
    pixels = np.asarray(picture).reshape(-1, 3).astype(int)
    furthest = pixels[np.abs(pixels - pixels[0]).sum(1).argmax()]
    return min(COLOURS, key=lambda name: np.abs(np.array(PALETTE[name]) - furthest).sum())


def centre(picture):
    pixels = np.asarray(picture).astype(int)
    rows, columns = np.nonzero(np.abs(pixels - pixels[0, 0]).sum(2) > 60)
    return columns.mean(), rows.mean()


@pytest.mark.parametrize("clip", CLIPS[::5], ids=lambda c: f"{c.number}")
def test_pictures_show_what_the_labels_say(clip):
    count = frame_count(clip)
    assert count == round(clip.seconds * FPS)
    assert draw(clip, 0).size == (SIDE, SIDE)
    change = next(k for k in range(count) if (k + 0.5) / count >= clip.change)
    assert [near(draw(clip, k)) for k in (0, change - 1, change, count - 1)] == [
        clip.colours[0], clip.colours[0], clip.colours[1], clip.colours[1]
    ]  # fmt: skip
    (x0, y0), (x1, y1) = centre(draw(clip, 0)), centre(draw(clip, count - 1))
    moved = {"right": x1 - x0, "left": x0 - x1, "down": y1 - y0, "up": y0 - y1}
    assert max(moved, key=moved.get) == clip.motion
    assert moved[clip.motion] > SIDE / 4


def loudest_hz(samples):
    spectrum = np.abs(np.fft.rfft(samples))
    return spectrum.argmax() * RATE / len(samples), (spectrum > spectrum.max() / 4).mean()


RANGES = {"hum": (85, 145), "bell": (1750, 2650), "organ": (290, 700)}


@pytest.mark.parametrize("clip", CLIPS[::5], ids=lambda c: f"{c.number}")
def test_sounds_are_what_the_labels_say(clip):
    samples = waveform(clip)
    assert samples.shape == (round(clip.seconds * RATE),)
    assert samples.dtype == np.float32
    assert 0.1 < np.abs(samples).max() <= 0.5
    middle = round(len(samples) * clip.change)
    for name, part in zip(clip.sounds, (samples[:middle], samples[middle:]), strict=True):
        hertz, filled = loudest_hz(part[200:-200])
        assert (filled > 0.2) == (name == "noise")
        if name != "noise":
            low, high = RANGES[name]
            assert low < hertz < high


def test_changes_lie_inside_a_pair_of_the_eight_sampled_frames():
    assert {c.change for c in CLIPS} == set(CHANGES)


def test_a_file_holds_what_was_drawn_and_played(tmp_path):
    pytest.importorskip("av")
    write_clip(CHANGING, tmp_path / "a.mp4")
    count = frame_count(CHANGING)
    frames = read_video(tmp_path / "a.mp4", count)
    assert [f.size for f in frames] == [(SIDE, SIDE)] * count
    for k in (0, count // 2, count - 1):
        off = np.abs(np.asarray(frames[k]).astype(int) - np.asarray(draw(CHANGING, k)).astype(int))
        assert off.mean() < 6
        assert near(frames[k]) == near(draw(CHANGING, k))
    played, samples = read_sound_of_video(tmp_path / "a.mp4").numpy(), waveform(CHANGING)
    assert len(samples) <= len(played) <= len(samples) + 2048
    middle = slice(2000, round(len(samples) * CHANGING.change) - 2000)
    assert np.abs(loudest_hz(played[middle])[0] - loudest_hz(samples[middle])[0]) < 20
