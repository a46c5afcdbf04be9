"""Two models beside each other."""

import pytest

from tamp_lightning.data.easy_vqa import CANDIDATES
from tamp_lightning.evaluation.summary import prediction_rows, summarise, write_predictions
from tamp_lightning.metrics.paired import BETTER, SAME, UNKNOWN, WORSE

from .conftest import scored

VERDICTS = (BETTER, SAME, UNKNOWN, WORSE)


def test_summary_counts_what_both_models_said(bed, other, suite, tmp_path):
    import pyarrow.parquet as pq

    dense = scored(bed, suite)
    pruned = scored(other, suite, dense)
    summary = summarise([suite], [dense], [pruned])
    assert summary["questions"] == len(suite.items)
    assert summary["benchmarks"].keys() == set(CANDIDATES)
    assert all(row["verdict"] in VERDICTS for row in [*summary["benchmarks"].values(), summary])
    pairs = [(d, p) for k in CANDIDATES for d, p in zip(dense.values[k], pruned.values[k], strict=True) if d == d]
    assert summary["flips"] == pytest.approx(sum(d != p for d, p in pairs) / len(pairs)) != 0
    ratios = [row["pruned"] / row["dense"] for row in summary["benchmarks"].values()]
    assert summary["retention"] == pytest.approx(100 * sum(ratios) / 3)
    write_predictions(tmp_path / "p.parquet", prediction_rows(suite, {"dense": dense, "pruned": pruned}))
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert len(rows) == len(suite.items)
    for row, question, k in zip(rows, suite.items, range(len(rows)), strict=True):
        assert (row["question"], row["answer"], row["picture"]) == (
            question.text,
            question.answer,
            str(question.picture),
        )
        assert (row["dense"], row["pruned"]) == (dense.predictions[k], pruned.predictions[k])
    assert any(row["dense"] != row["pruned"] for row in rows)
