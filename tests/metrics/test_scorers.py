"""Scorers of free answers by name."""

import pytest

from tamp_lightning.metrics import SCORERS, extractor, scorer


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_scorers_stay_in_range(name):
    target = ["red", "red", "blue"] if name.startswith("vqa") else "red"
    assert 0 <= scorer(name)("", target) <= scorer(name)("red", target) <= 1


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"'robust'.*got 'wise'"):
        extractor("wise")
    with pytest.raises(ValueError, match=r"'anls'.*got 'wise'"):
        scorer("wise")
