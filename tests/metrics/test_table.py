"""Traps of torchmetrics 1.9 (padded samplers, order, casts, merged collections, empty ranks) that ours survive."""

import pytest
import torch
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.utilities.data import dim_zero_max

from tamp_lightning.metrics import (
    AnswerScore,
    ChoiceAccuracy,
    CircularAccuracy,
    DenseFidelity,
    LikelihoodChoice,
    MMEScore,
    YesNo,
    extractor,
    scorer,
)

PREDS = ["yes", "no", "yes", "red", "blue"]
TARGETS = ["yes", "yes", "no", "red", "green"]


def exact_match(num_samples=5, **settings):
    return AnswerScore(num_samples, scorer("exact"), **settings)


def feed(metric, rows):
    metric.update(torch.tensor(rows), [PREDS[row] for row in rows], [TARGETS[row] for row in rows])
    return metric


def reduced(*ranks):
    """The first metric after the reduction torchmetrics does over processes."""
    for name in ranks[0]._defaults:
        stacked = torch.stack([getattr(rank, name) for rank in ranks])
        setattr(ranks[0], name, ranks[0]._reductions[name](stacked))
    return ranks[0]


def test_repeated_samples_count_once():
    metric = feed(feed(exact_match(), [0, 1, 2]), [3, 4, 0])
    assert metric.compute()["score"].item() == pytest.approx(2 / 5)
    plain = MeanMetric()
    plain.update(torch.tensor([1.0, 0, 0, 1, 0, 1]))
    assert plain.compute().item() == pytest.approx(3 / 6)


def test_order_does_not_matter():
    forward, backward = feed(exact_match(), [0, 1, 2, 3, 4]), feed(feed(exact_match(), [4, 2]), [3, 1, 0])
    assert torch.equal(forward.code, backward.code)
    assert torch.equal(forward.values(), torch.tensor([1, 0, 0, 1, 0], dtype=torch.float64))


def test_unseen_rows_are_nan_and_lower_the_coverage():
    metric = feed(exact_match(), [3, 4])
    assert torch.isnan(metric.values()).tolist() == [True, True, True, False, False]
    assert metric.compute()["score"].item() == 0.5
    assert metric.compute()["coverage"].item() == pytest.approx(0.4)


def test_two_ranks_merge_by_maximum():
    metric = reduced(feed(exact_match(), [0, 2, 4]), feed(exact_match(), [1, 3, 0]))
    assert metric._reductions["code"] is dim_zero_max
    assert metric.compute()["score"].item() == pytest.approx(2 / 5)
    assert metric.compute()["coverage"].item() == 1


def test_a_rank_without_data_changes_nothing():
    assert reduced(feed(exact_match(), [0, 1]), exact_match()).compute()["score"].item() == 0.5


def test_casting_the_module_keeps_the_sums():
    table, module = feed(exact_match(), [0, 1, 2]), torch.nn.Module()
    tokens = DenseFidelity()
    module.metrics = torch.nn.ModuleList([table, tokens])
    module.to(torch.bfloat16)
    for _ in range(10):
        tokens.update(torch.zeros(100, 4), torch.zeros(100, 4), torch.zeros(100, dtype=torch.int64))
    feed(table, [3, 4])
    assert table.code.dtype == tokens.tokens.dtype == torch.int64
    assert tokens.tokens.item() == 1000
    assert tokens.compute()["nll_dense"].item() == pytest.approx(1.3862944, abs=1e-7)
    assert table.compute()["score"].item() == pytest.approx(2 / 5)
    module.to(torch.bfloat16)
    assert table.compute()["score"].item() == pytest.approx(2 / 5)


def test_the_trap_of_float_states_is_still_there():
    plain = MeanMetric().to(torch.bfloat16)
    for _ in range(1000):
        plain.update(1.0)
    assert plain.weight.item() == 256


def test_a_collection_keeps_metrics_apart_that_differ_only_in_their_parser():
    both = MetricCollection({"official": YesNo(2), "lmms": YesNo(2, protocol="lmms")})
    both.update(torch.tensor([0]), ["Yes"], ["yes"])
    both.update(torch.tensor([1]), ["Yes."], ["yes"])
    assert len(both.compute_groups) == 2
    result = both.compute()
    assert result["official_accuracy"].item() == 1
    assert result["lmms_accuracy"].item() == 0.5


def test_a_replaced_score_is_the_last_one():
    metric = exact_match()
    metric.update(torch.tensor([0]), ["red"], ["red"])
    metric.update(torch.tensor([0]), ["blue"], ["red"])
    assert metric.compute()["score"].item() == 0
    metric(torch.tensor([0]), ["red"], ["red"])
    metric(torch.tensor([0]), ["blue"], ["red"])
    assert metric.compute()["score"].item() == 0


def test_forward_returns_the_batch():
    metric = exact_match()
    assert metric(torch.tensor([0]), ["red"], ["red"])["score"].item() == 1
    assert metric(torch.tensor([1]), ["blue"], ["red"])["score"].item() == 0
    assert metric.compute()["score"].item() == 0.5


def test_reset_under_inference_mode():
    metric = feed(exact_match(), [0])
    with torch.inference_mode():
        metric.reset()
        feed(metric, [1])
    assert feed(metric, [0]).compute()["score"].item() == 0.5


def test_nothing_seen_is_nan():
    with pytest.warns(UserWarning, match="before the ``update``"):
        result = exact_match().compute()
    assert torch.isnan(result["score"])
    assert result["coverage"].item() == 0


TEXTS = [["cat", "dog"]] * 2


@pytest.mark.parametrize(
    ("metric", "batch"),
    [
        (exact_match(2), (["a", "b"], ["a", ["c", "b"]])),
        (ChoiceAccuracy(2, extractor("robust")), (["A", "B"], torch.tensor([0, 0]), TEXTS)),
        (CircularAccuracy([7, 7], extractor("robust")), (["A", "B"], torch.tensor([0, 1]), TEXTS)),
        (LikelihoodChoice(2), (torch.rand(2, 3), torch.ones(2, 3), torch.tensor([0, 1]))),
        (YesNo(2), (["yes", "no"], ["yes", "no"])),
        (MMEScore(["p", "p"], ["color", "color"]), (["yes", "no"], ["Yes", "No"])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_results_are_scalars_for_log_dict(metric, batch):
    metric.update(torch.arange(2), *batch)
    result = metric.compute()
    assert result["coverage"].item() == 1
    assert all(value.shape == () and value.is_floating_point() for value in result.values())
    assert metric.values().dtype == torch.float64
    metric.reset()
    assert torch.isnan(metric.values()).all()


@pytest.mark.parametrize("index", [[5], [-1], [0, 1]])
def test_bad_positions_are_refused(index):
    with pytest.raises(ValueError, match="Expected"):
        exact_match().update(torch.tensor(index), ["a"], ["a"])


def test_bad_scores_and_types_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        AnswerScore(1, lambda reply, target: 2.0).update(torch.tensor([0]), ["a"], ["a"])
    with pytest.raises(ValueError, match="integers"):
        exact_match().update(torch.tensor([0.0]), ["a"], ["a"])
    with pytest.raises(ValueError, match="at least 1"):
        exact_match(0)
