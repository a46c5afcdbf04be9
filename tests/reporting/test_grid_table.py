"""The table of a comparison as Markdown and in the terminal."""

from tamp_lightning.reporting.grid_table import markdown, table, with_interval

KL = {"value": 1.0, "low": 0.5, "high": 1.5, "sd_over_seeds": 0.25}
ROW = {
    "method": "Wanda", "sparsity": 0.5, "seeds": 2, "benchmarks": {"pope": 0.5, "yes_no": 0.75},
    "balanced_accuracy": 0.625,
    "retention": {"value": 80.0, "low": 70.0, "high": 90.0, "sd_over_seeds": None},
    "corrected_retention": {"value": 60.0, "low": 40.0, "high": 80.0, "sd_over_seeds": None}, "kl": KL, "seconds": 12.4,
}  # fmt: skip
OTHER = ROW | {
    "method": "RIA",
    "corrected_retention": None,
    "kl": None,
    "against_reference": {"retention": KL, "kl": None},
}


def test_markdown():
    heads, _, first, second = markdown([ROW, OTHER], "Wanda").splitlines()
    assert heads.startswith("| method | sparsity | seeds | pope | yes/no, balanced | mean | retention |")
    assert "KL - Wanda's" in heads
    assert first == (
        "| Wanda | 50 % | 2 | 50.0 | 75.0 | 62.5 | 80.0 [70.0, 90.0] | 60.0 | 1.00 ± 0.25 [0.50, 1.50] | – | 12 |"
    )
    assert second.endswith("| – | – | – | 12 |")


def test_nothing_is_a_dash():
    assert with_interval(None, 1) == "–"


def test_terminal():
    columns = [list(column.cells) for column in table([ROW, OTHER], "Wanda").columns]
    assert columns == [["Wanda", "RIA"], ["50 %"] * 2, ["80.0"] * 2, ["1.00 ± 0.25", "–"], ["–", "–"], ["12"] * 2]
