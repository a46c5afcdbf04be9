"""Recipe files as YAML."""

import pytest

from tamp_lightning.config.recipe_file import read_mapping, read_yaml


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("-2E+4", -2e4), ("1_0e2", 1000.0), ("1.5e-3", 0.0015), ("3", 3), ("e3", "e3")]
)
def test_numbers_with_an_exponent_are_numbers(text, value):
    assert read_yaml(text) == value
    assert type(read_yaml(text)) is type(value)


def test_a_key_that_stands_twice_is_named_by_its_path(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("method: {a: {x: 1}, b: {x: 1, y: 2}}")
    assert read_mapping(path) == {"method": {"a": {"x": 1}, "b": {"x": 1, "y": 2}}}
    path.write_text("method: {a: {x: 1}, b: {x: 1, x: 2}}")
    with pytest.raises(ValueError, match=r"^a\.yaml: key method\.b\.x stands twice$"):
        read_mapping(path)
