"""MMBench: the TSV that VLMEvalKit distributes, and the layout on the hub. Both hold the rotations as rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tamp_lightning.data.readers.fields import in_base64, number, option_number, optional, picture, said, text
from tamp_lightning.data.readers.item import BadRow, Item, Items, Placed, Row, Source, gather
from tamp_lightning.data.readers.tables import rows_of, tsv
from tamp_lightning.errors import InputError

ROTATION = 10**6
LETTERS = "ABCDE"
# A picture field this short is the index of the row that holds the picture (VLMEvalKit, dataset/image_base.py).
LONGEST_INDEX = 64


def read(source: Source) -> Items:
    """Questions with their rotations; groups: category and l2_category. The test split has no answers.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `rows_of`.
    """
    rows, sha256 = rows_of(source, {".tsv": _with_pictures})
    lost: set[str] = set()

    def parse(row: Row) -> Item:
        try:
            return _item(row, source)
        except BadRow:
            index = optional(row, "index")
            lost.update({_circle(int(index))} if index.isdecimal() else ())
            raise

    return _whole(gather(rows, parse, source, sha256), lost, source)


def _circle(index: int) -> str:
    return str(index % ROTATION)


def _item(row: Row, source: Source) -> Item:
    options, image = _options(row), row.get("image")
    target = option_number(row.get("answer"), len(options))
    if target is not None and not options[target]:
        raise BadRow(f"answer is {LETTERS[target]}, an option without text")
    finer = _filled(row, "l2-category") or _filled(row, "L2-category")
    return Item(
        id=str(number(row, "index")),
        question=said(row, "question"),
        target=target,
        options=options,
        media=(in_base64(image) if isinstance(image, str) and image else picture(row, "image", source),),
        groups={"category": text(row, "category")} | ({"l2_category": finer} if finer else {}),
        hint=_filled(row, "hint"),
        circle=_circle(number(row, "index")),
    )


def _filled(row: Row, key: str) -> str:
    """A text; "" also for the "nan" that pandas wrote into the hub's tables where nothing stood."""
    value = optional(row, key)
    return "" if value.lower() == "nan" else value


def _options(row: Row) -> tuple[str, ...]:
    """Texts of the columns A to E, each under its own letter, "" where there is none.

    In the hub's tables "nan" is nothing, unless the answer is that letter; in a TSV, where nothing is nothing, a text.
    """
    answer = optional(row, "answer").upper()
    plain = "_tsv" in row
    options = [optional(row, key) if plain or key == answer else _filled(row, key) for key in LETTERS]
    while options and not options[-1]:
        options.pop()
    if len(list(filter(None, options))) < 2:
        raise BadRow(f"fewer than two of the options {LETTERS[0]} to {LETTERS[-1]} have a text")
    return tuple(options)


def _whole(items: Items, lost: set[str], source: Source) -> Items:
    """The items without questions that lost a rotation to `skip_bad`.

    Raises:
        InputError: none is left.
    """
    if not items.bad:
        return items
    rows = Counter(item.circle for item in items.items)
    rotated = max(rows.values()) > 1
    broken = {i.circle for i in items.items if rotated and rows[i.circle] < len(list(filter(None, i.options)))} | lost
    kept = items.without({circle: f"another rotation of question {circle} is bad" for circle in broken})
    if not len(kept):
        raise InputError(f"{source.path} has no question with all its rotations")
    return kept


def _with_pictures(path: Path) -> Iterator[Placed]:
    """Rows of the TSV, a picture field that names another row's index replaced by that row's picture."""
    rows = list(tsv(path))
    held = {row["index"]: row["image"] for _, row in rows if isinstance(row, dict) and {"index", "image"} <= row.keys()}
    for place, row in rows:
        value = row.get("image", "") if isinstance(row, dict) else ""
        if isinstance(row, dict):
            row = {**row, "_tsv": True}
        if isinstance(row, dict) and 0 < len(value) <= LONGEST_INDEX:
            if len(held.get(value, "")) <= LONGEST_INDEX:
                row = BadRow(f"image names row {value!r}, which holds no picture")
            else:
                row = {**row, "image": held[value]}
        yield place, row
