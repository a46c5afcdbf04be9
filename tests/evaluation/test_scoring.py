"""Teacher-forced scoring of packed questions equals asking every question on its own."""

import pytest
import torch

from tamp_lightning.data.easy_vqa import CANDIDATES, load_picture
from tamp_lightning.data.packing import conversation
from tamp_lightning.evaluation.packed import answer_means
from tamp_lightning.evaluation.summary import summarise

from .conftest import scored


@torch.no_grad()
def ask(model, processor, question):
    """Log-probabilities before every answer token, and those tokens, from a sequence of this question alone."""
    chat = conversation(question.text, question.answer)
    texts = [processor.apply_chat_template(chat[:1], add_generation_prompt=True), processor.apply_chat_template(chat)]
    pictures = [load_picture("test", question.picture)]
    prompt, whole = (processor(text=[t], images=pictures, return_tensors="pt") for t in texts)
    start, answer = prompt["input_ids"].shape[1], processor.tokenizer(f"{question.answer}<|im_end|>")["input_ids"]
    logits = model(**whole, use_cache=False).logits[0].double().log_softmax(-1)
    assert whole["input_ids"][0, start : start + len(answer)].tolist() == answer
    return logits[start - 1 : start - 1 + len(answer)], answer


def test_results_are_those_of_a_loop_over_questions(bed, suite, processor):
    scores = scored(bed, suite)
    right = {kind: [] for kind in CANDIDATES}
    for position, question in enumerate(suite.items):
        log_probs, _ = ask(bed, processor, question)
        words = CANDIDATES[question.kind]
        said = max(words, key=lambda w: log_probs[0, processor.tokenizer(w)["input_ids"][0]])
        assert scores.predictions[position] == said
        right[question.kind].append(said == question.answer)
        assert scores.values[question.kind][position] == float(said == question.answer)
    assert len(scores.predictions) == len(suite.items)
    for kind, key in (("yes_no", "accuracy"), ("shape", "score"), ("colour", "score")):
        assert scores.results[kind][key] == pytest.approx(sum(right[kind]) / len(right[kind]))
        assert sum(v == v for v in scores.values[kind]) == len(right[kind])
    assert 0 < sum(map(sum, right.values())) < len(suite.items)


def test_distance_to_dense_is_that_of_a_loop_over_answer_tokens(bed, other, suite, processor):
    dense = scored(bed, suite)
    scores = scored(other, suite, dense)
    found, kl, surprise = scores.results["fidelity"], [], []
    for position, question in enumerate(suite.items):
        (p, answer), (q, _) = ask(bed, processor, question), ask(other, processor, question)
        own = (p.exp() * (p - q)).sum(-1)
        assert scores.divergence[position] == pytest.approx(float(own.mean()), rel=1e-3, abs=1e-6)
        kl += own.tolist()
        surprise += [-float(q[k, token]) for k, token in enumerate(answer)]
    assert len(kl) == 2 * len(suite.items)
    assert found["kl"] == pytest.approx(sum(kl) / len(kl), rel=1e-4)
    assert found["kl"] > 1e-3


def test_answer_means_by_hand():
    assert answer_means(torch.tensor([1.0, 3, 10, 4, 5, 6]), [2, 1, 3]).tolist() == [2, 10, 5]


def test_a_model_is_at_no_distance_from_itself(bed, suite):
    dense = scored(bed, suite)
    again = scored(bed, suite, dense)
    assert again.results["fidelity"]["kl"] == pytest.approx(0, abs=1e-7)
    assert again.predictions == dense.predictions
    summary = summarise([suite], [dense], [again])
    assert summary["flips"] == 0
    assert summary["retention"] == pytest.approx(100)


def test_batch_size_changes_no_answer(bed, suite):
    first, second = scored(bed, suite, size=1), scored(bed, suite, size=16)
    assert first.predictions == second.predictions
    assert first.results == second.results
