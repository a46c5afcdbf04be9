"""The table of a benched checkpoint, by hand."""

from rich.console import Console

from tamp_lightning.tasks.bench_table import table
from tamp_lightning.tasks.bench_worker import COMPRESSED


def spread(median):
    return {"min": median / 2, "median": median, "max": 2 * median}


def result(form, tokens, **more):
    held = {"compressed_weights": 0, "compressed_bytes": 0, "values": "none"} | more
    speed = {"prefill_seconds": spread(0.5), "tokens_per_second": spread(tokens)}
    return {"form": form, "dtype": "float32", "model_bytes": 8e6, "peak": {"max": 9e6}, **speed, **held}


def test_decoding_is_compared_with_the_fastest_dense_form():
    held = {"compressed_weights": 1000, "compressed_bytes": 625, "values": "int8"}
    forms = [result("dense", 4.0), result("dense bf16", 5.0), result(COMPRESSED, 10.0, **held)]
    console = Console(record=True, width=160)
    console.print(table(forms))
    rows = [line for line in console.export_text().splitlines() if "float32" in line]
    assert [row.split()[-2] if row.split()[-1] in "│|" else row.split()[-1] for row in rows] == [
        "0.80x",
        "1.00x",
        "2.00x",
    ]
    assert "int8, 5.0 bits" in rows[2]
    assert "500 (250 to 1000)" in rows[0]
    assert "10.00 (5.00 to 20.00)" in rows[2]
