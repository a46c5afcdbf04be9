"""Two runs beside each other."""

from types import SimpleNamespace

import pytest

from tamp_lightning.reporting.scores import paired, paired_kl, same_questions


def run(pruned, kl, **changes):
    same = {"benchmark": "pope", "dense_score": 1.0}
    rows = [
        {**same, "id": k, "picture": k // 2, "pruned_score": score, "kl": far, **changes}
        for k, (score, far) in enumerate(zip(pruned, kl, strict=True))
    ]
    return SimpleNamespace(rows=rows, kl_interval=None if None in kl else "some")


def test_differences_are_those_of_the_means():
    first, second = run([1, 1, 0, 1], [0.1, 0.2, 0.3, 0.4]), run([1, 0, 0, 1], [0.3, 0.4, 0.5, 0.6])
    found = paired(first, second)
    assert found.value == pytest.approx(75 - 50)
    assert found.low <= found.value <= found.high
    assert paired_kl(first, second).value == pytest.approx(-0.2)


def test_replies_that_were_generated_have_no_divergence():
    generated = run([1, 1], [None, None])
    assert paired_kl(generated, generated) is None


@pytest.mark.parametrize("changes", [{"benchmark": "mme"}, {"id": 9}, {"picture": 9}, {"dense_score": 0.0}])
def test_runs_over_other_questions_cannot_be_paired(changes):
    first, second = run([1, 1], [0.1, 0.1]), run([1, 1], [0.1, 0.1], **changes)
    assert same_questions(first, first)
    assert not same_questions(first, second)
    for compare in (paired, paired_kl):
        with pytest.raises(ValueError, match="two runs over the same questions and dense scores, but they differ"):
            compare(first, second)
