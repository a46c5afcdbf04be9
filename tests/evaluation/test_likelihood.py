"""The likeliest candidate is that of scoring each alone."""

import pytest
import torch

from tamp_lightning.benchmarks.registry import BENCHMARKS, question_alone
from tamp_lightning.data.media import read_picture
from tamp_lightning.data.packing import conversation
from tamp_lightning.evaluation.likelihood import check_likelihood

from ..fixtures.layouts import LAYOUTS


def nll_alone(bed, processor, item, prompt, answer):
    """Sum over the tokens of an answer and its end mark, the question asked alone."""
    chat = conversation(prompt, answer)
    picture = read_picture(item.media[0].content)
    start, whole = (
        processor(
            text=[processor.apply_chat_template(c, add_generation_prompt=g)], images=[picture], return_tensors="pt"
        )
        for c, g in ((chat[:1], True), (chat, False))
    )
    ids, first = whole["input_ids"][0], start["input_ids"].shape[1]
    end = first + int((ids[first:] == processor.tokenizer.eos_token_id).long().argmax()) + 1
    with torch.no_grad():
        log_probs = bed(**whole).logits[0].log_softmax(-1)
    return -log_probs[torch.arange(first - 1, end - 1), ids[first:end]].sum().item(), end - first


@pytest.mark.parametrize("alone", [False, True])
def test_likelihood_is_that_of_each_candidate_alone(alone, easy, run, bed, processor):
    benchmark = question_alone(BENCHMARKS["pope"]) if alone else BENCHMARKS["pope"]
    items = easy("pope", 4)
    answers, store = run(benchmark, items, likelihood=True)
    for position, record in store.records().items():
        item = items.items[position]
        candidates = (benchmark.continuations or benchmark.candidates)(item)
        expected = [nll_alone(bed, processor, item, benchmark.prompt(item), words) for words in candidates]
        assert record.nll == pytest.approx([nll for nll, _ in expected], rel=1e-4)
        assert list(record.lengths) == [length for _, length in expected]
        means = [nll / length for nll, length in zip(record.nll, record.lengths, strict=True)]
        assert record.reply == benchmark.candidates(item)[means.index(min(means))]
    assert answers.results["unparsed"] == 0
    right = [benchmark.answer_index(items.items[n]) for n in sorted(store.records())]
    margins = [
        record.nll[1 - k] / record.lengths[1 - k] - record.nll[k] / record.lengths[k]
        for k, (_, record) in zip(right, sorted(store.records().items()), strict=True)
    ]
    assert answers.results["margin"] == pytest.approx(sum(margins) / len(margins), abs=1e-5)


def test_options_texts_do_not_depend_on_their_rotation(easy, run):
    items = easy("mmbench", 3)
    answers, store = run(question_alone(BENCHMARKS["mmbench"]), items, likelihood=True)
    assert answers.results["circular"] == answers.results["vanilla"] == answers.results["accuracy"]
    by_circle = {}
    for position, record in store.records().items():
        by_circle.setdefault(items.items[position].circle, []).append(sorted(record.nll))
    assert all(nll == pytest.approx(rows[0], rel=1e-4) for rows in by_circle.values() for nll in rows)


REFUSED = {
    "textvqa hub": "textvqa has no closed set of answers to score by likelihood: use answers: generate",
    "muirbench hub": "muirbench has questions without exactly one picture",
}


@pytest.mark.parametrize(("layout", "message"), REFUSED.items())
def test_likelihood_is_refused_where_it_means_nothing(layout, message, tmp_path, processor):
    name, write = LAYOUTS[layout]
    with pytest.raises(ValueError, match=message):
        check_likelihood(BENCHMARKS[name], BENCHMARKS[name].read(write(tmp_path)), processor)
