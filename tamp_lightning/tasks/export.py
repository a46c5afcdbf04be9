"""`tamp export`: a checkpoint without its zeros, and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tamp_lightning.errors import InputError
from tamp_lightning.export.job import Source, to_bitmask, to_dense
from tamp_lightning.export.shards import Sizes
from tamp_lightning.reporting import card
from tamp_lightning.testbeds.checkpoints import resolve

FORMATS = ("bitmask", "dense")
BITMASK = """## Files

In the bitmask form of tamp-lightning (`quant_method: tamp_bitmask`, version 1): {linears} linear layers are stored as
their {kept:,} surviving weights and where they stand, {encoded:,} bytes instead of {dense:,}. `import tamp_lightning`
before `from_pretrained`; the model in memory is the plain one, bit for bit, and `save_pretrained` writes it as such.
`tamp export FOLDER --format dense --out NEW` gives the plain checkpoint back."""


def run_export(checkpoint: str, form: str, out: Path, console: Console) -> None:
    """Write a checkpoint in another form to the new folder `out` and say what it takes.

    Args:
        checkpoint: a run folder, a checkpoint folder, or a hub id.
        form: `bitmask` or `dense`.
        out: must not exist or be empty; a killed export of the same goes on there.
        console: where sizes are printed.

    Raises:
        InputError, FileNotFoundError: bad input; nothing is left behind.
    """
    if form not in FORMATS:
        raise InputError(f"--format is {form!r}, expected {' or '.join(FORMATS)}")
    source = Source.find(resolve(checkpoint))
    before = size_of(source.folder)
    if form == "bitmask":
        sizes = to_bitmask(source, out, cards)
        share = 100 * sizes.encoded / sizes.dense
        console.print(
            f"{sizes.linears} linears: {sizes.dense / 1e6:.1f} MB became {sizes.encoded / 1e6:.1f} MB ({share:.2f} %)",
            highlight=False,
        )
    else:
        to_dense(source, out, cards)
    after = size_of(out)
    console.print(f"weight files: {before / 1e6:.1f} MB became {after / 1e6:.1f} MB", highlight=False)
    console.print(f"checkpoint: [bold]{out}[/bold]", soft_wrap=True)


def cards(folder: Path, sizes: Sizes | None) -> dict[str, str]:
    """The model cards of an exported checkpoint by file name: what is known of it, and how it is stored now."""
    own = folder / card.CARD
    text = own.read_text(encoding="utf-8") if own.is_file() else ""
    base = card.Base.find(folder)
    if not card.is_ours(text):
        text = card.sparse_card(base)
    else:
        base = replace(base, card=None)  # it lies beside ours already and is copied
    section = card.PLAIN if sizes is None else BITMASK.format(**vars(sizes))
    beside = {} if base.card is None else {card.BASE_CARD: base.card}
    return {card.CARD: card.with_files(text, section), **beside}


def size_of(folder: Path) -> int:
    """Bytes of a checkpoint's weight files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
