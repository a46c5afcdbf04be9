"""Questions about sounds and videos, as messages."""

import pytest

from ...fixtures import layouts
from ...fixtures.layouts import prepared
from .test_item import edit_json


def test_benchmarks_read_messages_too(tmp_path):
    benchmark, source = prepared("music_avqa json", tmp_path)
    plain = benchmark.read(source).items[0]
    turns = [{"role": "user", "content": "<video>\nHow many sound?"}, {"role": "assistant", "content": "two"}]
    layouts.write_json(tmp_path / "avqa_test.json", [{"messages": turns, "videos": ["00000093.mp4"]}])
    item = benchmark.read(source).items[0]
    assert (item.question, item.target, item.media) == (plain.question, plain.target, plain.media)


@pytest.mark.parametrize("text", ["What is a <audio> tag?", "Loud?"])
def test_a_tag_of_another_medium_stays_and_a_medium_without_tag_is_shown(text, tmp_path):
    benchmark, source = prepared("music_avqa json", tmp_path)
    edit_json(tmp_path / "avqa_test.json", lambda rows: rows[0]["conversations"][0].__setitem__("value", text))
    item = benchmark.read(source).items[0]
    assert item.question == text
    assert len(item.media) == 1
