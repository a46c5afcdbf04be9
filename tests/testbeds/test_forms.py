"""The benchmarks' wordings, to the letter, and options that hold the right answer at every letter."""

import random
from collections import Counter

from tamp_lightning.data.easy_vqa import COLOURS, SHAPES
from tamp_lightning.testbeds.forms import draw_form, options, worded
from tamp_lightning.testbeds.scene_questions import YES_NO, Asked

COLOUR = Asked("pair", "What is the color of the circle?", "teal", COLOURS)
EXIST = Asked("exist", "Is there a red circle in the image?", "no", YES_NO)


def test_wordings():
    word = "\nAnswer the question using a single word or phrase."
    assert worded(COLOUR, "plain") == (COLOUR.text, "teal")
    assert worded(COLOUR, "word") == (COLOUR.text + word, "teal")
    assert worded(EXIST, "mme") == (f"{EXIST.text} Please answer yes or no.{word}", "no")
    assert worded(COLOUR, "unseen")[0] == f"Question: {COLOUR.text}\nAnswer the question using a single word."
    prompt, letter = worded(COLOUR, "options", ("red", "teal", "gray", "blue"))
    assert letter == "B"
    assert prompt == (
        f"{COLOUR.text} There are several options:\nA. red\nB. teal\nC. gray\nD. blue\n"
        "\nAnswer with the option's letter from the given choices directly."
    )


def test_options_are_four_and_the_right_one_is_anywhere():
    places = Counter()
    for k in range(400):
        chosen = options(COLOUR, random.Random(k))
        assert len(set(chosen)) == 4
        places[chosen.index("teal")] += 1
    assert min(places.values()) > 70
    shape = Asked("pair", "", "circle", SHAPES)
    assert set(options(shape, random.Random(0))) == {*SHAPES, "hexagon"}


def test_the_unseen_wording_is_never_drawn_and_yes_or_no_has_no_options():
    rng = random.Random(0)
    assert {draw_form(EXIST, rng) for _ in range(200)} == {"plain", "word", "mme"}
    assert {draw_form(COLOUR, rng) for _ in range(200)} == {"plain", "word", "options"}
