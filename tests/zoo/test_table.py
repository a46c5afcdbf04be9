"""docs/models.md says what the zoo's tests run."""

from .table import DOCS, TITLES, ZOO, refused, replaced, rows


def test_the_documented_families_are_those_of_the_zoo():
    assert TITLES.keys() == ZOO.keys()
    text = DOCS.read_text()
    assert replaced(replaced(text, "zoo", rows()), "refused", refused()) == text, "run python -m tests.zoo.table"
