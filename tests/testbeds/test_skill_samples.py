"""Calibration samples of the second edition: its own conversations, and captions that share nothing with them."""

import pytest

from tamp_lightning.testbeds.skill_samples import caption, caption_pool, skill_pool
from tamp_lightning.testbeds.skills import scene_pictures


def test_conversations_show_the_picture_once_and_alternate():
    samples = skill_pool(0, 3).draw(6, 0)
    assert len(samples) == 6
    for sample in samples:
        assert [m["role"] for m in sample.messages] == ["user", "assistant"] * (len(sample.messages) // 2)
        assert len(sample.messages) <= 6
        assert [p["type"] for m in sample.messages for p in m["content"]].count("image") == 1
        assert sample.messages[0]["content"][0]["type"] == "image"
        assert sample.images[0].size == (64, 64)
    assert [s.messages for s in skill_pool(0, 3).draw(6, 0)] == [s.messages for s in samples]
    assert [s.id for s in skill_pool(1, 3).draw(6, 1)] != [s.id for s in samples]


def test_captions_share_no_colour_and_no_word_with_the_questions():
    texts = [caption(k)[1] for k in range(200)]
    assert len(set(texts)) > 120
    assert len({caption(k)[0].tobytes() for k in range(50)}) == 50
    answers = {q.answer for _, own in scene_pictures("test", 100) for q in own} - {"black", "A", "B", "C", "D"}
    said = {word.strip(".") for text in texts for word in text.split()}
    assert not said & answers


@pytest.mark.parametrize(("pool", "count"), [(lambda: skill_pool(0, 4), 10**6), (caption_pool, 0)])
def test_too_many_or_none_are_refused(pool, count):
    with pytest.raises(ValueError, match=r"calibration samples wanted, (skills|captions) has \d+: ask for 1 to"):
        pool().draw(count, 0)
