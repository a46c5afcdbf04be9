"""What a reply says once its reasoning is taken off."""

import re

# As the templates of thinking models write them; lmms-eval strips the first two (filters/transformation.py).
MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<analysis>", "</analysis>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
)
BOXES = (("<|begin_of_box|>", "<|end_of_box|>"), ("<answer>", "</answer>"))
SIGNS = tuple(sign for pair in (*MARKS, *BOXES) for sign in pair)


def opener(prompt: str) -> str:
    """The mark of reasoning that a prompt leaves open, "" where it leaves none."""
    return next((start for start, end in MARKS if prompt.rfind(start) > prompt.rfind(end)), "")


def final_answer(reply: str, opened: str = "") -> tuple[str, bool]:
    """The answer of a reply: what is outside of its reasoning, and inside of its box if it has one.

    Args:
        reply: all that was said.
        opened: the mark that the prompt left open, from `opener`.

    Returns:
        The answer without outer white space, and whether the reply ends within its reasoning, so that there is none.
    """
    text = opened + reply
    for start, end in MARKS:
        text = re.sub(f"{re.escape(start)}.*?{re.escape(end)}", "", text, flags=re.DOTALL)
        if start in text:
            return "", True
        # a prompt may have opened it without saying so
        text = text.rpartition(end)[2]
    for start, end in BOXES:
        if start in text:
            text = text.rpartition(start)[2].partition(end)[0]
    return text.strip(), False
