"""Wordings, letter by letter: another wording is another benchmark."""

import pytest

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data.readers.item import Item

CHOICE = Item("1", "Which is IT?", 1, ("one.", "two."), hint="A hint.")
OPEN = Item("2", "What is the NAME?", ("a",))
LETTER = "Answer with the option's letter from the given choices directly."
WORD = "Answer the question using a single word or phrase."
BEST = f"{LETTER[:-1]} and only give the best option."
PROMPTS = {
    "mmbench": f"A hint. Which is IT? There are several options:\nA. one.\nB. two.\n\n{LETTER}",
    "scienceqa_img": f"Context: A hint.\nWhich is IT?\nA. one.\nB. two.\n{LETTER}",
    "mmmu": f"Which is IT?\nA. one.\nB. two.\n\n{LETTER}",
    "muirbench": f"Which is IT?\nA. one.\nB. two.\n{LETTER}",
    "nextqa": f"Which is IT?\nA. one.\nB. two.\n{LETTER}",
    "videomme": "Select the best answer to the following multiple-choice question based on the video. Respond with "
    "only the letter (A, B, C, or D) of the correct option.\n"
    f"Which is IT?\nA. one.\nB. two.\n{BEST} The best answer is: ",
    "mvbench": f"Question: Which is IT?\nOptions:\n(A) one.\n(B) two.\n{BEST}",
    "perceptiontest": f"Question: Which is IT?\nOptions:\n(A) one.\n(B) two.\n{BEST}",
    "pope": f"What is the NAME?\n{WORD}",
    "mme": f"What is the NAME?\n{WORD}",
    "gqa": f"What is the NAME?\n{WORD}",
    "vqav2": f"What is the NAME?\n{WORD}",
    "textvqa": f"What is the name?\n{WORD}",
    "vizwiz": "What is the name?\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n" + WORD,
    "ok_vqa": "What is the NAME?\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n" + WORD,
    "music_avqa": "What is the NAME?",
    "clothoaqa": "Question: What is the NAME?\nAnswer the question using a single word.",
    "vocalsound": "Identify the human sound in the audio.\nOptions:\n(A) Laughter\n(B) Sigh\n(C) Cough\n"
    f"(D) Throat clearing\n(E) Sneeze\n(F) Sniff\n.{BEST}",
}


@pytest.mark.parametrize(("name", "text"), PROMPTS.items())
def test_wording(name, text):
    benchmark = BENCHMARKS[name]
    assert benchmark.prompt(CHOICE if "A. one" in text or "(A) one" in text else OPEN) == text


@pytest.mark.parametrize(("name", "item"), [("mmbench", Item("1", "Q?", 0, ("x", "y"))), ("mmmu", OPEN)])
def test_what_is_not_there_is_not_asked(name, item):
    prompt = BENCHMARKS[name].prompt(item)
    assert prompt == (
        f"Q? There are several options:\nA. x\nB. y\n\n{LETTER}" if name == "mmbench" else f"{OPEN.question}\n\n{WORD}"
    )
