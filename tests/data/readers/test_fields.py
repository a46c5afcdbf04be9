"""Fields of a row."""

from tamp_lightning.data.readers.fields import number, optional

from ...fixtures.layouts import prepared
from .test_item import edit_json


def test_outer_spaces_of_a_question_stay(tmp_path):
    """lmms-eval puts doc["question"] into the prompt as it is."""
    benchmark, source = prepared("textvqa json", tmp_path)
    edit_json(tmp_path / "TextVQA_0.5.1_val.json", lambda c: c["data"][0].__setitem__("question", " what is it? "))
    assert benchmark.prompt(benchmark.read(source).items[0]).startswith(" what is it? \n")


def test_text_that_says_nan_is_text():
    assert optional({"a": "nan"}, "a") == "nan"
    assert optional({"a": float("nan")}, "a") == ""
    assert number({"a": 3.0}, "a") == number({"a": "3"}, "a") == 3
