"""easy-VQA: fixed splits by picture, a slice that words alone cannot answer, labels told from answers."""

from collections import Counter

import pytest

from tamp_lightning.data import easy_vqa
from tamp_lightning.data.easy_vqa import Question, balanced_slice, by_picture, labels, majority_answers, questions

PICTURES = {"train": 3500, "calibration": 250, "selection": 250, "test": 1000}


def test_splits_have_their_sizes_and_share_no_picture():
    groups = {split: set(by_picture(questions(split))) for split in PICTURES}
    assert {split: len(pictures) for split, pictures in groups.items()} == PICTURES
    assert len(groups["train"] | groups["calibration"] | groups["selection"]) == 4000
    ids = [q.id for split in ("train", "calibration", "selection") for q in questions(split)]
    assert len(ids) == len(set(ids)) == 38575
    assert len(questions("test")) == 9673


def test_pictures_are_rgb_and_test_pictures_are_others_than_train_pictures():
    train, test = easy_vqa.load_picture("train", 0), easy_vqa.load_picture("test", 0)
    assert train.size == test.size == (64, 64)
    assert train.mode == test.mode == "RGB"
    assert train.tobytes() != test.tobytes()
    assert easy_vqa.load_picture("calibration", 3500).tobytes() == easy_vqa.load_picture("train", 3500).tobytes()


@pytest.mark.parametrize(("split", "size"), [("selection", 400), ("test", 400), ("test", 1500)])
def test_slice_is_balanced_so_that_words_say_nothing_about_yes_or_no(split, size):
    chosen = balanced_slice(split, size)
    assert len(chosen) == pytest.approx(size, abs=6)
    assert len({q.id for q in chosen}) == len(chosen)
    assert [q.id for q in chosen] == sorted(q.id for q in chosen)
    cells = Counter((q.negated, q.answer) for q in chosen if q.kind == "yes_no")
    assert len(cells) == 4
    assert len(set(cells.values())) == 1
    for kind in ("shape", "colour"):
        assert len(set(Counter(q.answer for q in chosen if q.kind == kind).values())) == 1
    # the best that polarity can do: the commoner answer of each polarity
    right = sum(max(cells[polarity, a] for a in ("yes", "no")) for polarity in (False, True))
    assert right / sum(cells.values()) == 0.5


def test_blind_majority_of_the_training_texts_is_at_chance_on_balanced_yes_no():
    majority = majority_answers()
    chosen = [q for q in balanced_slice("test", 1500) if q.kind == "yes_no"]
    assert sum(majority[q.text] == q.answer for q in chosen) / len(chosen) == pytest.approx(0.5, abs=0.01)
    every = [q for q in questions("test") if q.kind == "yes_no"]
    assert sum(majority[q.text] == q.answer for q in every) / len(every) > 0.8  # what balancing is for


def test_slice_is_seeded_and_refuses_what_the_split_does_not_have():
    assert balanced_slice("test", 400) == balanced_slice("test", 400)
    assert balanced_slice("test", 400) != balanced_slice("test", 400, seed=1)
    with pytest.raises(ValueError, match=r"slice of 1500 needs .* selection has"):
        balanced_slice("selection", 1500)


def ask(text, answer):
    return Question(0, 0, text, answer)


@pytest.mark.parametrize(
    ("items", "known"),
    [
        ([], (None, None)),
        ([ask("what shape is it?", "circle")], ("circle", None)),
        ([ask("what color is it?", "teal")], (None, "teal")),
        ([ask("is there a red shape?", "yes")], (None, "red")),
        ([ask("is there a red shape?", "no")], (None, None)),
        ([ask("is there not a red shape?", "no")], (None, "red")),
        ([ask("is there not a red shape?", "yes")], (None, None)),
        ([ask("is no triangle present?", "no")], ("triangle", None)),
        ([ask("does the image not contain a circle?", "yes"), ask("is there a blue shape?", "yes")], (None, "blue")),
        ([ask("what shape is it?", "circle"), ask("is there a triangle?", "no")], ("circle", None)),
    ],
)
def test_labels_by_hand(items, known):
    assert labels(items) == known


def test_labels_agree_with_every_direct_answer():
    for items in list(by_picture(questions("train")).values())[:300]:
        told = labels([q for q in items if q.kind == "yes_no"])
        for q in items:
            if q.kind != "yes_no":
                assert told[["shape", "colour"].index(q.kind)] in (None, q.answer)


def test_majority_by_hand(monkeypatch):
    rows = (ask("a?", "no"), ask("a?", "yes"), ask("a?", "yes"), ask("b?", "no"), ask("b?", "yes"))
    monkeypatch.setattr(easy_vqa, "questions", lambda split: rows)
    assert majority_answers() == {"a?": "yes", "b?": "no"}  # a tie goes to the first by the alphabet


def test_missing_package_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(easy_vqa.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install easy-vqa==1\.0"):
        easy_vqa.root()


@pytest.mark.parametrize("split", ["test", "selection"])
def test_a_slice_about_few_pictures_is_balanced_too(split):
    few, many = (easy_vqa.balanced_slice(split, 320, pictures=count) for count in (100, None))
    assert len({q.picture for q in few}) <= 100 < len({q.picture for q in many})
    cells = [{(q.kind, q.answer, q.negated) for q in chosen if q.kind == "yes_no"} for chosen in (few, many)]
    assert cells[0] == cells[1]
    for kind, words in easy_vqa.CANDIDATES.items():
        counts = [sum(q.kind == kind and q.answer == word for q in few) for word in words]
        assert max(counts) == min(counts) > 0
