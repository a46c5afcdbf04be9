"""Model cards: what they say, where they come from, and that nobody's text breaks out of its place."""

import hashlib
import json

import pytest
from huggingface_hub import ModelCard

import tamp_lightning
from tamp_lightning.cli.main import main
from tamp_lightning.reporting.card import (
    BASE_CARD,
    CARD,
    Base,
    is_ours,
    prune_card,
    sparse_card,
    with_files,
    write_cards,
)
from tamp_lightning.reporting.table import percent
from tamp_lightning.runs.plan import Plan

from ..conftest import as_batch, toys
from ..stream.conftest import make_llava, save

PLAN = Plan(
    {
        "model.layers.0.q_proj": {"kept": 60, "size": 100, "sparsity": 0.4},
        "model.layers.1.q_proj": {"kept": 20, "size": 100, "sparsity": 0.8},
        "model.layers.0.up_proj": {"kept": 70, "size": 100, "sparsity": 0.3},
    }
)
METHOD = {"tokens": "amia", "allocation": "das", "solver": "wanda", "pattern": "2:4", "sparsity": 0.5}
METRICS = {
    "questions": 400,
    "split": "test",
    "benchmarks": {"yes_no": {"floor": 0.5, "dense": 0.969, "pruned": 0.497}},
    "retention": 51.3,
    "fidelity": {"kl": 1.25},
}
BASE_TEXT = "---\nlicense: apache-2.0\nlanguage: en\ntags: [theirs]\n---\n# Their model\nLarge and dense.\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "their_model").mkdir()
    (tmp_path / "their_model/config.json").write_text("{}")
    (tmp_path / "their_model/README.md").write_text(BASE_TEXT)
    return tmp_path / "their_model"


def test_what_a_card_says(folder):
    calibration = {"source": "llava_json", "path": "/home/me/secret/calls.json", "samples": 128, "media": None}
    text = prune_card(Base.find(folder), PLAN, METHOD, calibration, METRICS, {"torch": "2.13.0"})
    assert "linear layers. Embeddings, head, norms and biases are untouched.\n\n" in text
    trained = prune_card(Base.find(folder), PLAN, METHOD | {"reconstruct": {"steps": 3, "norms": True}})
    assert "Embeddings and head are untouched; norms and biases of these blocks were trained.\n\n" in trained
    card = ModelCard(text)
    assert card.data.license == "apache-2.0"
    assert card.data.language == "en"
    assert "pruning" in card.data.tags
    assert "theirs" not in card.data.tags
    assert card.data.base_model is None
    for part in (
        "pruned to 50.0 % zeros",
        "150 of\n300, in 3 linear layers",
        "| solver | wanda |",
        "| q\\_proj | 2 | 200 | 40.0 % | 60.0 % | 80.0 % |",
        "* path: calls.json",
        "| yes\\_no | 50.0 % | 96.9 % | 49.7 % |",
        "51.3 %",
        "1.2500 nats",
        "* torch: 2.13.0",
        "their\\_model: apache-2.0",
        "without any training",
        "as fast as the dense one",
    ):
        assert part in text, part
    assert "secret" not in text
    assert "media" not in text
    assert percent(0.497) == "49.7 %"


def test_a_hub_id_is_the_base_model(folder):
    assert ModelCard(sparse_card(Base.find(folder, "llava-hf/llava-v1.6"))).data.base_model == "llava-hf/llava-v1.6"
    assert ModelCard(sparse_card(Base.find(folder, str(folder)))).data.base_model is None


def test_what_is_not_known_is_not_claimed(folder):
    (folder / "README.md").unlink()
    text = sparse_card(Base.find(folder))
    assert "states no licence" in text
    assert "not recorded" in text
    assert "## Method" not in text
    assert "None were taken" in text


@pytest.mark.parametrize("damaged", ["---\n: [\n---\n# x", "---\n- list\n---\n", "no header", "\xff"])
def test_a_damaged_card_of_the_base_is_no_hindrance(folder, damaged):
    (folder / "README.md").write_bytes(damaged.encode("latin-1"))
    assert "states no licence" in sparse_card(Base.find(folder))


def test_text_stays_in_its_place(folder):
    evil = "x | y\n---\n# Title <script>alert(1)</script> {{ 7 * 7 }} ![a](http://b) `c`"
    text = prune_card(Base(evil, {"license": "mit\n---\nbase_model: other"}), PLAN, {**METHOD, "tokens": evil})
    assert "<script>" not in text
    assert "49" not in text.replace("49.7", "")
    assert "\n# Title" not in text
    assert "[a](" not in text
    row = next(line for line in text.splitlines() if line.startswith("| tokens"))
    assert row.replace("\\|", "").count("|") == 3
    assert ModelCard(text).data.base_model is None


def test_the_section_on_files_is_replaced_and_nothing_else(folder):
    text = prune_card(Base.find(folder), PLAN, METHOD)
    other = with_files(text, r"## Files \1 \g<0>")
    assert r"## Files \1 \g<0>" in other
    assert "A plain checkpoint" not in other
    assert with_files(other, "x") == with_files(text, "x")
    assert is_ours(other)
    assert not is_ours(BASE_TEXT)


def test_the_base_models_own_card_is_kept_beside(folder):
    base = Base.find(folder)
    digests = write_cards(folder, sparse_card(base), base)
    assert (folder / BASE_CARD).read_text() == BASE_TEXT
    assert digests == {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in (CARD, BASE_CARD)}
    again = Base.find(folder)  # a pruned checkpoint that is pruned once more
    assert again.card == BASE_TEXT
    assert again.header["license"] == "apache-2.0"


def test_a_pruned_folder_has_a_card_that_follows_it_through_exports(tmp_path):
    source = save(make_llava(), tmp_path / "tiny")
    (source / "README.md").write_text(BASE_TEXT)
    tamp_lightning.prune(source, [as_batch(toys("ptpp"))], out=tmp_path / "run", progress=False, accelerator="cpu")
    card = (tmp_path / "run/model/README.md").read_text()
    assert "| allocation | das |" in card
    assert (tmp_path / "run/model/README.base.md").read_text() == BASE_TEXT
    main(["export", str(tmp_path / "run"), "--format=bitmask", "--out", str(tmp_path / "small")])
    small = (tmp_path / "small/README.md").read_text()
    assert "quant_method: tamp_bitmask" in small
    assert "| allocation | das |" in small
    main(["export", str(tmp_path / "small"), "--format=dense", "--out", str(tmp_path / "back")])
    assert (tmp_path / "back/README.md").read_text() == card
    assert (tmp_path / "back/README.base.md").read_text() == BASE_TEXT
    assert json.loads((tmp_path / "back/config.json").read_text()) == json.loads(
        (tmp_path / "run/model/config.json").read_text()
    )
