"""Models that reason before they answer, from the chat template to the scores."""

import copy

import pytest
import torch

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.evaluation.generate import GenerationTask
from tamp_lightning.evaluation.items import GenerationOptions
from tamp_lightning.evaluation.reasoning import opened_reasoning, template_options, whole_replies
from tamp_lightning.evaluation.scoring import score
from tamp_lightning.evaluation.summary import prediction_rows
from tamp_lightning.metrics.reasoning import final_answer

from ..fixtures.layouts import LAYOUTS

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] %}"
    "{{ '<image>' if c['type'] == 'image' else c['text'] }}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}"
)


@pytest.fixture
def thinker(processor):
    """The tiny processor with a template that opens reasoning unless it is asked not to."""
    other = copy.copy(processor)
    other.chat_template = TEMPLATE
    return other


def test_a_template_that_can_switch_reasoning_off_is_asked_to(thinker, processor):
    assert template_options(thinker, False) == {"enable_thinking": False}
    assert template_options(thinker, True) == {"enable_thinking": True}
    assert template_options(processor, True) == {}
    assert opened_reasoning(thinker, False) == ""
    assert opened_reasoning(thinker, True) == "<think>"
    assert opened_reasoning(processor, True) == ""


def test_the_prompt_says_so(thinker, bed, tmp_path, trainer, monkeypatch):
    benchmark, items = read("pope jsonl", tmp_path)
    texts = []
    call = type(thinker).__call__
    monkeypatch.setattr(type(thinker), "__call__", lambda self, **k: texts.extend(k["text"]) or call(self, **k))
    for thinking in (False, True):
        asked = GenerationTask(benchmark, items, thinker, GenerationOptions(new_tokens=1, thinking=thinking))
        assert asked.inputs()["enable_thinking"] is thinking
        score(bed, asked, trainer, batch_size=2)
    assert all(text.endswith("<think>\n\n</think>\n\n") for text in texts[:6])
    assert all(text.endswith("assistant: <think>\n") for text in texts[6:])
    assert len(texts) == 12


def read(layout, folder):
    name, write = LAYOUTS[layout]
    return BENCHMARKS[name], BENCHMARKS[name].read(write(folder))


def said(replies, monkeypatch, bed, trainer, task):
    """Scores of a run in which the model says the replies, in the order of the questions."""
    given = iter(replies)
    monkeypatch.setattr(bed, "generate", lambda **k: torch.zeros(len(k["input_ids"]), 1 + k["input_ids"].shape[1]))
    module = "tamp_lightning.evaluation.generate.whole_replies"
    monkeypatch.setattr(module, lambda tokenizer, tokens: [next(given) for _ in tokens])
    return score(bed, task, trainer, batch_size=16)


def test_reasoning_is_kept_and_not_read(tmp_path, bed, processor, trainer, monkeypatch):
    benchmark, items = read("mmbench tsv", tmp_path)
    right = [item.target for item in items.items]
    replies = [f"<think>Maybe {'BA'[n % 2]} or {'ABCD'[n]}.</think>\n{'ABCD'[n]}" for n in right]
    replies[3] = "<think>Is it A or B? If it is A"
    replies[4] = f"<|begin_of_box|>{'ABCD'[right[4]]}<|end_of_box|>"
    task = GenerationTask(benchmark, items, processor, GenerationOptions())
    scores = said(replies, monkeypatch, bed, trainer, task)
    results = scores.results["mmbench"]
    assert (results["accuracy"], results["circular"], results["unparsed"]) == (pytest.approx(5 / 6), 0.5, 0)
    assert results["cut_in_reasoning"] == pytest.approx(1 / 6)
    rows = prediction_rows(task, {"": scores})
    assert [row["reply"] for row in rows] == replies
    assert [row.get("cut", False) for row in rows] == [False] * 3 + [True] + [False] * 2


def test_a_reply_cut_off_is_no_yes_for_pope(tmp_path, bed, processor, trainer, monkeypatch):
    """Its rule takes all that has no no for a yes: half of a reasoning would be right half of the time."""
    benchmark, items = read("pope jsonl", tmp_path)
    task = GenerationTask(benchmark, items, processor, GenerationOptions())
    results = said(["<think>Well"] * 6, monkeypatch, bed, trainer, task).results["pope"]
    assert (results["accuracy"], results["cut_in_reasoning"], results["unparsed"]) == (0, 1, 0)


def test_nothing_is_said_of_reasoning_where_there_is_none(tmp_path, bed, processor, trainer, monkeypatch):
    benchmark, items = read("pope jsonl", tmp_path)
    results = said(
        ["yes"] * 6, monkeypatch, bed, trainer, GenerationTask(benchmark, items, processor, GenerationOptions())
    ).results
    results = results["pope"]
    assert "cut_in_reasoning" not in results
    assert results["accuracy"] == 0.5


class Marked:
    """A tokenizer whose marks of reasoning are special tokens, as some models have them."""

    all_special_tokens = ("<think>", "</think>", "<eos>")
    pieces = ("<think>", "why", "</think>", "C", "<eos>")

    def batch_decode(self, tokens, skip_special_tokens):
        skipped = self.all_special_tokens if skip_special_tokens else ()
        return ["".join(p for t in row if (p := self.pieces[t]) not in skipped) for row in tokens]


def test_marks_that_are_special_tokens_are_not_lost():
    assert whole_replies(Marked(), torch.arange(5)[None]) == ["<think>why</think>C"]
    assert final_answer("<think>why</think>C") == ("C", False)
