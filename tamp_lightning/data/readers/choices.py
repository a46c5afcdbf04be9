"""Multiple choice about pictures: ScienceQA-IMG, MMMU, MuirBench."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tamp_lightning.data.readers.fields import (
    option_index,
    option_number,
    optional,
    picture,
    said,
    text,
    texts,
)
from tamp_lightning.data.readers.item import BadRow, Item, Items, Media, Placed, Row, Source, gather
from tamp_lightning.data.readers.tables import dataset_rows, json_content, json_rows, sha256_of
from tamp_lightning.errors import InputError

_MMMU_PICTURE = re.compile(r"<image (\d)>")
_MMMU_SUBJECT = re.compile(r"^[a-z]+_(.+)_\d+$")


def read_scienceqa(source: Source) -> Items:
    """ScienceQA's questions with a picture: `problems.json`, `pid_splits.json` and folders of pictures, or the hub.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `dataset_rows`.
    """
    folder = Path(str(source.path))
    files = [folder / "problems.json", folder / "pid_splits.json"]
    official = files[0].is_file()
    rows, sha256 = (_problems(files, source), sha256_of(files)) if official else dataset_rows(source)

    def parse(row: Row) -> Item:
        options = texts(row, "choices")
        place = str(row.get("key") or row["_number"])
        return Item(
            id=place,
            question=said(row, "question"),
            target=option_index(row, "answer", len(options)),
            options=options,
            media=(picture(row, "image", source),),
            groups={k: v for k in ("subject", "grade") if (v := optional(row, k))},
            hint=optional(row, "hint"),
        )

    return gather(_numbered(rows), parse, source, sha256)


def _numbered(rows: Iterator[Placed]) -> Iterator[Placed]:
    # the hub's rows have no id
    for number, (place, row) in enumerate(rows):
        yield place, row if isinstance(row, BadRow) else {**row, "_number": number}


def _problems(files: list[Path], source: Source) -> Iterator[Placed]:
    split = source.split or "test"
    splits = json_content(files[1])
    wanted = set(map(str, splits.get(split, []))) if isinstance(splits, dict) else set()
    if not wanted:
        raise InputError(f"{files[1]} has no split {split!r}")
    for place, row in json_rows(files[0]):
        if isinstance(row, BadRow):
            yield place, row
        elif row["key"] in wanted and row.get("image"):
            yield place, {**row, "image": str(Path(split) / row["key"] / str(row["image"]))}


def read_mmmu(source: Source) -> Items:
    """MMMU's hub layout: options as text that holds a list, pictures named `<image n>` in the text; group: subject.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `dataset_rows`.
    """
    rows, sha256 = dataset_rows(source)

    def parse(row: Row) -> Item:
        choice = text(row, "question_type") == "multiple-choice"
        options = texts(row, "options") if choice else ()
        question = said(row, "question")
        subject = _MMMU_SUBJECT.match(text(row, "id"))
        return Item(
            id=text(row, "id"),
            question=question,
            target=option_number(row.get("answer"), len(options)) if choice else _open_answer(row),
            options=options,
            media=_mmmu_pictures(row, " ".join([question, *options]), source),
            groups={"subject": subject[1]} if subject else {},
        )

    return gather(rows, parse, source, sha256)


def _open_answer(row: Row) -> tuple[str, ...] | None:
    """The answers; a text that holds a list is several, any other is one, also "[Ar]4s2"; None for "" and "?"."""
    value = optional(row, "answer")
    if value in ("", "?"):
        return None
    try:
        return texts(row, "answer")
    except BadRow:
        return (value,)


def _mmmu_pictures(row: Row, said: str, source: Source) -> tuple[Media, ...]:
    # each picture once, in the order of their numbers, as lmms-eval gives them
    numbers = sorted(set(_MMMU_PICTURE.findall(said)))
    return tuple(picture(row, f"image_{n}", source) for n in numbers)


def read_muirbench(source: Source) -> Items:
    """MuirBench's hub layout: several pictures, `<image>` in question and options; groups: task, relation, type.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `dataset_rows`.
    """
    rows, sha256 = dataset_rows(source)

    def parse(row: Row) -> Item:
        options, pictures = texts(row, "options"), row.get("image_list") or []
        if not pictures:
            raise BadRow("image_list is empty")
        return Item(
            id=text(row, "idx"),
            question=said(row, "question"),
            target=option_number(row.get("answer"), len(options)),
            options=options,
            media=tuple(Media("image", cell) for cell in pictures),
            groups={k: v for k in ("task", "image_relation", "image_type") if (v := optional(row, k))},
        )

    return gather(rows, parse, source, sha256)
