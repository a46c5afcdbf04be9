"""The table of a benched checkpoint, by hand."""

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
    columns = [list(column.cells) for column in table(forms).columns]
    rows = {cells[0]: list(cells[1:]) for cells in zip(*columns, strict=True)}
    assert rows["beside dense"] == ["0.80x", "1.00x", "2.00x"]
    assert rows["linears"] == ["", "", "int8,\n5.0 bits"]
    assert rows["prefill ms"][0] == "500\n(250 to 1000)"
    assert rows["tokens/s"][2] == "10.00\n(5.00 to 20.00)"
