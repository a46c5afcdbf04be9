"""`tamp export`: a checkpoint without its zeros, and back."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from tamp_lightning.errors import InputError
from tamp_lightning.export.form import version_of
from tamp_lightning.export.job import Source, to_bitmask, to_dense
from tamp_lightning.export.shards import Sizes
from tamp_lightning.ops.rounding import BITS
from tamp_lightning.reporting import card
from tamp_lightning.testbeds.checkpoints import resolve

FORMATS = ("bitmask", "dense")
VALUES = ("none", *BITS)
BITMASK = """## Files

In the bitmask form of tamp-lightning (`quant_method: tamp_bitmask`, version {version}): {linears} linear layers are
stored as their {kept:,} surviving weights and where they stand, {encoded:,} bytes instead of {dense:,}. `import
tamp_lightning` before `from_pretrained`; the model in memory is the plain one, bit for bit, and `save_pretrained`
writes it as such. `tamp export FOLDER --format dense --out NEW` gives the plain checkpoint back."""
ROUNDED = """## Files

In the bitmask form of tamp-lightning (`quant_method: tamp_bitmask`, version {version}), {rounded} linear layers with
{values} values (whole numbers, a scale per row and 128 columns; zeros stay zeros): {kept:,} surviving weights and where
they stand, {encoded:,} bytes instead of {dense:,}, {share:.2f} bits a weight. `import tamp_lightning` before
`from_pretrained`; the model in memory has the rounded weights, and `tamp export FOLDER --format dense --out NEW` writes
them as a plain checkpoint."""


def run_export(checkpoint: str, form: str, out: Path, console: Console, values: str = "none") -> None:
    """Write a checkpoint in another form to the new folder `out` and say what it takes.

    Args:
        checkpoint: a run folder, a checkpoint folder, or a hub id.
        form: `bitmask` or `dense`.
        out: must not exist or be empty; a killed export of the same goes on there.
        console: where sizes are printed.
        values: `none`, or with the bitmask form what is kept is rounded to `int8` or `int4`.

    Raises:
        InputError, FileNotFoundError: bad input; nothing is left behind.
    """
    if form not in FORMATS:
        raise InputError(f"--format is {form!r}, expected {' or '.join(FORMATS)}")
    if values not in VALUES:
        raise InputError(f"--values is {values!r}, expected {', '.join(VALUES)}")
    if values != "none" and form != "bitmask":
        raise InputError(
            f"--values is {values}; it goes with --format bitmask alone, dense files hold no whole numbers"
        )
    source = Source.find(resolve(checkpoint))
    before = size_of(source.folder)
    if form == "bitmask":
        rounded = None if values == "none" else values
        sizes = to_bitmask(source, out, partial(cards, values=rounded), rounded)
        console.print(_summary(sizes, rounded), highlight=False)
    else:
        to_dense(source, out, cards)
    after = size_of(out)
    console.print(f"weight files: {before / 1e6:.1f} MB became {after / 1e6:.1f} MB", highlight=False)
    console.print(f"checkpoint: [bold]{out}[/bold]", soft_wrap=True)


def _summary(sizes: Sizes, values: str | None) -> str:
    share, bits = 100 * sizes.encoded / sizes.dense, 8 * sizes.encoded / sizes.weights
    what = f", {sizes.experts} of them experts'" if sizes.experts else ""
    what += f", {sizes.rounded} of them {values}" if values else ""
    sizes_of = f"{sizes.dense / 1e6:.1f} MB became {sizes.encoded / 1e6:.1f} MB"
    return f"{sizes.linears} linears{what}: {sizes_of} ({share:.2f} %, {bits:.2f} bits a weight)"


def cards(folder: Path, sizes: Sizes | None, values: str | None = None) -> dict[str, str]:
    """The model cards of an exported checkpoint by file name: what is known of it, and how it is stored now."""
    own = folder / card.CARD
    text = own.read_text(encoding="utf-8") if own.is_file() else ""
    base = card.Base.find(folder)
    if not card.is_ours(text):
        text = card.sparse_card(base)
    else:
        base = replace(base, card=None)  # it lies beside ours already and is copied
    section = card.PLAIN if sizes is None else _section(sizes, values)
    beside = {} if base.card is None else {card.BASE_CARD: base.card}
    return {card.CARD: card.with_files(text, section), **beside}


def _section(sizes: Sizes, values: str | None) -> str:
    facts = {**vars(sizes), "version": version_of(bool(sizes.experts), values is not None)}
    if values is None:
        return BITMASK.format(**facts)
    return ROUNDED.format(**facts, values=values, share=8 * sizes.encoded / sizes.weights)


def size_of(folder: Path) -> int:
    """Bytes of a checkpoint's weight files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
