"""A plan block by block and kind by kind, by hand."""

import pytest

from tamp_lightning.reporting.plan import PlanView
from tamp_lightning.runs.plan import Plan


def row(kept, size, cosine, text):
    share = {"text": text, "image": 1 - text, "video": 0.0, "audio": 0.0}
    own = {"kept": kept, "size": size, "shape": [1, size], "sparsity": 1 - kept / size, "sha256": ""}
    return own | {"cosine": {"text-text": cosine}, "diversity": 0.0, "token_share": share, "tokens_per_sample": 1.0}


@pytest.fixture
def view():
    linears = {
        "m.layers.0.q": row(4, 10, 0.5, 1.0),
        "m.layers.0.up": row(10, 20, 0.7, 0.5),
        "m.layers.1.q": row(6, 10, None, 0.0),
    }
    return PlanView(Plan.parse({"sparsity": 0.5, "linears": linears}))


def test_kinds_and_blocks(view):
    assert (view.blocks, view.kinds) == ([0, 1], ["q", "up"])
    assert view.cells() == [[pytest.approx(0.6), pytest.approx(0.4)], [0.5, None]]
    assert not view.even


def test_figures_of_a_block_are_means_over_its_linears(view):
    assert view.diversity() == {"text-text": [pytest.approx(0.4), None]}
    assert view.token_shares() == {"text": [0.75, 0.0], "image": [0.25, 1.0]}
    assert view.scores() is None
