"""The suite of nine kinds: what is asked and judged, what the controls change, what a blind model would score."""

from collections import Counter

import pytest
import torch

from tamp_lightning.data import easy_vqa
from tamp_lightning.data.packing import pack
from tamp_lightning.testbeds import skills
from tamp_lightning.testbeds.mixture import KINDS
from tamp_lightning.testbeds.skills import FormSuite, SkillSuite, easy_pictures, load, scene_pictures


@pytest.fixture
def small(reader, monkeypatch):
    monkeypatch.setitem(skills.SLICES, "quick", (6, 8))

    def make(shown="own"):
        return SkillSuite(reader, "selection", "quick", shown)

    return make


def one_hot(reader, words):
    rows = torch.full((len(words), len(reader.tokenizer)), -5.0)
    for row, word in zip(rows, words, strict=True):
        row[reader.tokenizer(word)["input_ids"][0]] = 5.0
    return rows


def test_items_are_packed_by_picture_in_order(small, reader):
    suite = small()
    assert [i for _, positions in suite for i in positions] == list(range(len(suite.items)))
    name, posed = suite.groups[7]
    packed, _ = suite[7]
    expected = pack(reader, load("selection", name), [(q.prompt, q.answer) for q in posed])
    assert torch.equal(packed.input_ids, expected.input_ids)
    assert torch.equal(packed.pixels["pixel_values"], expected.pixels["pixel_values"])


def test_right_and_wrong_replies_are_told_apart(small, reader):
    suite = small()
    batch = suite.collate([suite[k] for k in range(len(suite))])
    for words, score in (
        ([q.answer for q in suite.items], 1.0),
        ([q.allowed[q.allowed.index(q.answer) - 1] for q in suite.items], 0.0),
    ):
        first = torch.arange(len(words))
        records, right = suite.judge(batch, one_hot(reader, words).log_softmax(-1), first, first)
        assert [record.reply for record in records] == words
        assert right == list(range(len(words)))
        assert all((record.certainty > 0.9) == bool(score) for record in records)
        metrics = suite.metrics()
        suite.update(metrics, records)
        found = suite.headline({kind: {k: float(v) for k, v in m.compute().items()} for kind, m in metrics.items()})
        assert found == dict.fromkeys(KINDS, score)


def test_controls_change_the_picture_or_the_wording_alone(small):
    suites = {shown: small(shown) for shown in ("own", "shuffled", "blank", "unseen")}
    own = suites["own"]
    for shown in ("shuffled", "blank"):
        other = suites[shown]
        assert other.items == own.items
        for k in range(len(own)):
            assert torch.equal(other[k][0].input_ids, own[k][0].input_ids)
            assert not torch.equal(other[k][0].pixels["pixel_values"], own[k][0].pixels["pixel_values"])
    assert [q.asked for q in suites["unseen"].items] == [q.asked for q in own.items]
    assert all(q.prompt.endswith("using a single word.") for q in suites["unseen"].items)
    trained = {q.prompt for q in own.items}
    assert not any(q.prompt in trained for q in suites["unseen"].items)


def test_the_words_of_yes_no_questions_do_not_tell(small):
    known = easy_vqa.majority_answers()
    asked = [q.asked for _, posed in easy_pictures("test", 60) for q in posed if q.asked.kind == "yes_no"]
    assert sum(known[q.text] == q.answer for q in asked) * 2 == len(asked) > 60
    assert small().chance()["yes_no"] == 0.5


def test_every_kind_and_wording_is_asked_and_letters_are_alike_often():
    posed = [q for _, own in easy_pictures("test", 135) + scene_pictures("test", 165) for q in own]
    kinds = Counter(q.asked.kind for q in posed)
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) > 90
    letters = Counter(q.answer for q in posed if q.form == "options")
    assert min(letters.values()) > 0.15 * letters.total()


def test_forms_of_easy_vqa_are_a_suite_of_their_own(reader, monkeypatch):
    monkeypatch.setattr(FormSuite, "pictures", staticmethod(lambda size: (8, 0)))
    suite = FormSuite(reader, "selection")
    assert set(suite.chance()) == set(suite.metrics()) == {"yes_no", "shape", "colour"}
    assert {q.form for q in suite.items} == {"plain", "word", "mme"}
    letters = FormSuite(reader, "selection", shown="letters")
    assert {(q.form, q.allowed) for q in letters.items} == {("options", tuple("ABCD"))}
    assert {q.asked for q in letters.items} == {q.asked for q in suite.items if q.asked.kind != "yes_no"}


def test_a_slice_is_the_same_every_time_and_rows_name_it(small):
    first, again = small(), small()
    assert first.rows() == again.rows()
    assert len(first.rows()) == len(first.items)
    assert {row["picture"] for row in first.rows()} == {name for name, _ in first.groups}
    assert first.picture(first.groups[0][0]).size == (64, 64)
