"""What the second edition is trained on: fresh numbered pictures, packed with their kinds, and named by quarter."""

import torch

from tamp_lightning.data.easy_vqa import COLOURS, SHAPES
from tamp_lightning.data.packing import IGNORE
from tamp_lightning.testbeds.mixture import KINDS, NAMES, UNKNOWN, MixedQuestions, NamedPictures, scene_names
from tamp_lightning.testbeds.scenes import DIGITS, SIZES, WORDS, Scene, Thing, Writing


def test_batches_have_the_kind_of_every_question(reader):
    data = MixedQuestions(reader, 12, 5)
    items = [data[k] for k in range(len(data))]
    batch = data.collate(items)
    assert len(batch["items"]) == len(batch["answers"]) == sum(len(kinds) for _, kinds in items)
    assert {KINDS[k] for k in batch["items"].tolist()} > {"yes_no", "count", "position"}
    assert all(1 <= len(kinds) <= 2 * 5 for _, kinds in items)
    assert all(int((packed.labels != IGNORE).sum()) >= 2 * len(kinds) for packed, kinds in items)


def test_easy_vqa_alone_has_its_kinds_and_asks_for_letters(reader):
    data = MixedQuestions(reader, 12, 6, easy=1.0)
    kinds = {KINDS[k] for n in range(12) for k in data[n][1]}
    assert kinds == {"yes_no", "shape", "colour"}


def test_numbers_go_on_where_another_stage_ended(reader):
    early, late = MixedQuestions(reader, 8, 4), MixedQuestions(reader, 4, 4, 4)
    assert torch.equal(early[6][0].input_ids, late[2][0].input_ids)
    assert torch.equal(NamedPictures(8)[6][0], NamedPictures(4, 4)[2][0])
    assert not torch.equal(NamedPictures(8)[5][0], NamedPictures(8)[6][0])


def test_names_of_a_scene_by_hand():
    things = (Thing("triangle", "teal", "large", 0),)
    names = scene_names(Scene("train", 0, things, Writing("7", "red", 3)))
    named = dict(zip(NAMES, names.T.tolist(), strict=True))
    none = {name: len(words) for name, words in NAMES.items()}
    assert named["shape"] == [SHAPES.index("triangle"), *[none["shape"]] * 3, *[UNKNOWN] * 3]
    assert named["colour"] == [COLOURS.index("teal"), *[none["colour"]] * 2, COLOURS.index("red"), *[UNKNOWN] * 3]
    assert named["digit"] == [*[none["digit"]] * 3, DIGITS.index("7"), *[UNKNOWN] * 3]
    assert named["size"] == [SIZES.index("large"), *[none["size"]] * 3, *[UNKNOWN] * 3]
    assert named["word"] == [*[UNKNOWN] * 4, *[none["word"]] * 2, UNKNOWN]


def test_a_word_is_named_in_its_half_and_its_colour_in_both_quarters():
    names = scene_names(Scene("train", 0, (), Writing("fish", "blue", 2)))
    assert names[:, list(NAMES).index("word")].tolist() == [*[UNKNOWN] * 4, len(WORDS), WORDS.index("fish"), UNKNOWN]
    assert names[2:4, list(NAMES).index("colour")].tolist() == [COLOURS.index("blue")] * 2
