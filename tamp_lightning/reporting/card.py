"""The model card of a pruned checkpoint: README.md with the YAML header of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from yaml import YAMLError

from tamp_lightning.files import write_text
from tamp_lightning.reporting.wording import moves_weights, trains_norms
from tamp_lightning.runs.plan import Plan

CARD, BASE_CARD = "README.md", "README.base.md"
START, END = "<!-- tamp-lightning: files -->", "<!-- tamp-lightning: end of files -->"
TAGS = ["pruning", "sparsity", "tamp-lightning"]
KEPT_OF_BASE = ("license", "license_name", "license_link", "language", "pipeline_tag")
"""What the header takes from the base model's."""
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
PLAIN = """## Files

A plain checkpoint: its zeros are stored, so it is as large as the dense one. It loads with
`from_pretrained` wherever the base model does."""


class Safe(str):
    """Markdown of our own, not to be escaped."""

    __slots__ = ()


@dataclass(frozen=True)
class Base:
    """What is known of the model that was pruned.

    Attributes:
        name: of the model, as people call it.
        header: what its own card's header says that holds for the pruned one too.
        card: text of its own card, if it has one.
    """

    name: str
    header: dict[str, Any] = field(default_factory=dict)
    card: str | None = None

    @classmethod
    def find(cls, folder: Path, name: str | None = None) -> Base:
        """Read a checkpoint folder's card and config.

        Args:
            folder: the checkpoint, as yet without a card of ours.
            name: what the user calls it: a hub id or a path; default: the folder's name.
        """
        hub = name is not None and HUB_ID.fullmatch(name) is not None and not Path(name).exists()
        header: dict[str, Any] = {"base_model": name} if hub else {}
        text = _read(folder / CARD)
        if text is None or is_ours(text):
            text = _read(folder / BASE_CARD)
        header |= _header(text, folder)
        return cls(name if hub and name else Path(name or folder).name, header, text)


def prune_card(
    base: Base,
    plan: Plan,
    method: Mapping[str, Any],
    calibration: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    versions: Mapping[str, Any] | None = None,
) -> str:
    """The card of a checkpoint that was just pruned.

    Args:
        base: what was pruned.
        plan: what every linear kept.
        method: the method's section of the recipe.
        calibration: the calibration's section of the recipe.
        metrics: content of metrics.json.
        versions: versions of packages by name.
    """
    return _render(
        base,
        title=f"{base.name}, pruned to {100 * plan.sparsity:.1f} % zeros",
        plan=plan.content,
        size=plan.size,
        zeroed=plan.zeroed,
        kinds=_kinds(plan.linears),
        method=method,
        moved=moves_weights(method),
        norms=trains_norms(method),
        calibration={k: _published(k, v) for k, v in (calibration or {}).items() if v is not None},
        metrics=metrics,
        versions=versions,
    )


def sparse_card(base: Base) -> str:
    """The card of a sparse checkpoint of which nothing more is known."""
    facts = dict.fromkeys(("plan", "method", "moved", "norms", "calibration", "metrics", "versions"))
    return _render(base, title=f"{base.name}, sparse", **facts)


def with_files(card: str, section: str) -> str:
    """A card of ours with another section on its files."""
    return re.sub(f"{START}.*?{END}", lambda _: f"{START}\n{section}\n{END}", card, count=1, flags=re.DOTALL)


def is_ours(card: str) -> bool:
    """Whether a card was written here."""
    return START in card and END in card


def write_cards(folder: Path, card: str, base: Base) -> dict[str, str]:
    """Write the card into a checkpoint folder, the base model's own beside it; return the sha256 of both by name."""
    cards = {CARD: card, **({BASE_CARD: base.card} if base.card is not None else {})}
    for name, text in cards.items():
        write_text(folder / name, text)
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in cards.items()}


def _render(base: Base, **facts: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # that is for HTML
        undefined=StrictUndefined,
        finalize=_escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    header = ModelCardData(library_name="transformers", tags=TAGS, **base.header).to_yaml()
    licence = base.header.get("license_name") or base.header.get("license")
    text = environment.get_template("card.md.jinja").render(
        header=Safe(header),
        base=base.name,
        licence=licence,
        files=Safe(f"{START}\n{PLAIN}\n{END}"),
        percent=lambda share: Safe(f"{100 * share:.1f} %"),
        count=lambda number: Safe(f"{number:,}"),
        **facts,
    )
    return str(ModelCard(re.sub(r"\n{3,}", "\n\n", text)))


def _escape(value: Any) -> Any:
    """Text that Markdown takes literally, on one line; figures and Markdown of our own as they are."""
    if isinstance(value, Safe) or not isinstance(value, str):
        return value
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", " ".join(value.split()))


def _published(key: str, value: Any) -> Any:
    """A setting without the folders of the machine it was used on."""
    return Path(str(value)).name if key in ("path", "media") and not HUB_ID.fullmatch(str(value)) else value


def _kinds(linears: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sparsity of the linears of each name, over the blocks."""
    rows: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for name, row in linears.items():
        rows[name.rpartition(".")[2]].append(row)
    return [
        {
            "name": name,
            "layers": len(group),
            "size": (size := sum(row["size"] for row in group)),
            "least": min(row["sparsity"] for row in group),
            "mean": 1 - sum(row["kept"] for row in group) / size,
            "most": max(row["sparsity"] for row in group),
        }
        for name, group in rows.items()
    ]


def _header(card: str | None, folder: Path) -> dict[str, Any]:
    """What the base model's card, or else its config, says that holds for the pruned one."""
    data: dict[str, Any] = {}
    if card is not None and card.startswith("---"):
        try:
            data = ModelCard(card, ignore_metadata_errors=True).data.to_dict()
        except (ValueError, YAMLError):  # a damaged card of somebody else's: then nothing is known
            data = {}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    known = {"license": config.get("license")} | {k: data.get(k) for k in KEPT_OF_BASE if data.get(k)}
    return {k: v for k, v in known.items() if isinstance(v, str | list)}


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
