"""MMBench: the TSV that VLMEvalKit distributes, and the layout on the hub. Both hold the rotations as rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tamp_lightning.data.readers.fields import in_base64, number, option_number, optional, picture, text
from tamp_lightning.data.readers.item import BadRow, Item, Items, Placed, Row, Source, gather
from tamp_lightning.data.readers.tables import rows_of, tsv

ROTATION = 10**6
LETTERS = "ABCDE"
# A picture field this short is the index of the row that holds the picture (VLMEvalKit, dataset/image_base.py).
LONGEST_INDEX = 64


def read(source: Source) -> Items:
    """Questions with their rotations; groups: category and l2_category.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `rows_of`.
    """
    rows, sha256 = rows_of(source, {".tsv": _with_pictures})

    def parse(row: Row) -> Item:
        options = _options(row)
        groups = {"category": text(row, "category")}
        finer = optional(row, "l2-category") or optional(row, "L2-category")
        image = row.get("image")
        return Item(
            id=str(number(row, "index")),
            question=text(row, "question"),
            target=option_number(row.get("answer"), len(options)),
            options=options,
            media=(in_base64(image) if isinstance(image, str) and image else picture(row, "image", source),),
            groups=groups | ({"l2_category": finer} if finer else {}),
            hint=optional(row, "hint"),
            circle=str(number(row, "index") % ROTATION),
        )

    return gather(rows, parse, source, sha256)


def _options(row: Row) -> tuple[str, ...]:
    options = [optional(row, letter) for letter in LETTERS]
    while options and not options[-1]:
        options.pop()
    if len(options) < 2 or not all(options):
        raise BadRow(f"options A to {LETTERS[max(len(options) - 1, 1)]} are not all there")
    return tuple(options)


def _with_pictures(path: Path) -> Iterator[Placed]:
    """Rows of the TSV, a picture field that names another row's index replaced by that row's picture."""
    rows = list(tsv(path))
    held = {row["index"]: row["image"] for _, row in rows if isinstance(row, dict) and {"index", "image"} <= row.keys()}
    for place, row in rows:
        value = row.get("image", "") if isinstance(row, dict) else ""
        if isinstance(row, dict) and 0 < len(value) <= LONGEST_INDEX:
            if len(held.get(value, "")) <= LONGEST_INDEX:
                row = BadRow(f"image names row {value!r}, which holds no picture")
            else:
                row = {**row, "image": held[value]}
        yield place, row
