"""Replies of thinking models: reasoning off, boxes open, and what was cut off in the middle."""

import pytest

from tamp_lightning.metrics import extractor
from tamp_lightning.metrics.reasoning import final_answer, opener

ANSWERS = {
    "C": ("C", False),
    " the cat. ": ("the cat.", False),
    "": ("", False),
    "<think>It may be A or B.</think>\nC": ("C", False),
    "<think>A</think>B<think>C</think> D": ("B D", False),
    "<think>\n\n</think>\n\nC": ("C", False),
    "It may be A.</think>\n\nC": ("C", False),
    "<think>It may be A or B, for": ("", True),
    "<think>A</think> so <think>B": ("", True),
    "<thinking>A?</thinking>C": ("C", False),
    "[THINK]A[/THINK]C": ("C", False),
    "◁think▷A◁/think▷C": ("C", False),
    "<think>A</think><|begin_of_box|>C<|end_of_box|>": ("C", False),
    "The answer is <|begin_of_box|>C<|end_of_box|>.": ("C", False),
    "<think>A</think><answer> C </answer>": ("C", False),
    "<answer>C": ("C", False),
    "a < b </b>": ("a < b </b>", False),
}


@pytest.mark.parametrize("reply", ANSWERS)
def test_answers(reply):
    assert final_answer(reply) == ANSWERS[reply]


def test_a_prompt_may_have_opened_the_reasoning():
    assert final_answer("It may be A", "<think>") == ("", True)
    assert final_answer("It may be A</think>C", "<think>") == ("C", False)


@pytest.mark.parametrize(
    ("prompt", "mark"),
    [
        ("user: why?\nassistant: ", ""),
        ("assistant: <think>\n", "<think>"),
        ("assistant: <think>\n\n</think>\n\n", ""),
        ("what is <think>?</think> assistant: ◁think▷", "◁think▷"),
    ],
)
def test_what_a_prompt_leaves_open(prompt, mark):
    assert opener(prompt) == mark


@pytest.mark.parametrize("rule", ["videollama2_videomme", "videollama2_mvbench", "mmbench_lmms", "letter_dot", "mmmu"])
def test_no_rule_reads_the_reasoning(rule):
    options = ["red", "green", "blue", "grey"]
    assert extractor(rule)(final_answer("<think>It may be A or B.</think>\nC")[0], options) == 2
