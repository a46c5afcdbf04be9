"""Exact match, as lmms-eval does it."""

import pytest

from tamp_lightning.metrics import scorer

SPACES = [("yes", "yes", 1), ("Yes.", "yes", 1), ("yes ", "yes", 0), (" yes", "yes", 0), ("yes .", "yes", 0),
          ("a  b", "a b", 0), ("it's", "its", 1), ("yes ", "Yes! ", 1)]  # fmt: skip


@pytest.mark.parametrize(("reply", "target", "expected"), SPACES)
def test_exact_match_does_not_touch_spaces(reply, target, expected):
    """lmms-eval api/metrics.py exact_match_hf_evaluate: lower-case, then delete string.punctuation, then ==."""
    assert scorer("exact")(reply, target) == expected
