"""Questions about sounds: LLaVA-style JSON (MUSIC-AVQA, AVInstruct, ClothoAQA), ClothoAQA, VocalSound, TUT2017."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from tamp_lightning.data.readers.fields import named, optional, sound, text
from tamp_lightning.data.readers.item import BadRow, Item, Items, Kind, Media, Placed, Row, Source, gather
from tamp_lightning.data.readers.tables import json_lines, json_rows, rows_of

MARKS = ("<video>", "<audio>", "<image>")
_HUMAN, _MODEL = ("human", "user"), ("gpt", "assistant")


def read_conversations(source: Source) -> Items:
    """LLaVA-style JSON, a list of {video or audio or image, conversations}; the first answer counts.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `rows_of`.
    """
    rows, sha256 = rows_of(source, {".json": json_rows, ".jsonl": json_lines})

    def parse(row: Row) -> Item:
        question, answer = _first_turns(row)
        name = optional(row, "id") or optional(row, "question_id") or str(row["_number"])
        return Item(name, question, answer, media=_media(row, source))

    return gather(_numbered(rows), parse, source, sha256)


def read_clothoaqa(source: Source) -> Items:
    """ClothoAQA: LLaVA-style JSON, or the hub's parquet with the sounds in it.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `rows_of`.
    """
    rows, sha256 = rows_of(source, {".json": json_rows, ".jsonl": json_lines})

    def parse(row: Row) -> Item:
        if "conversations" in row:
            question, answer = _first_turns(row)
        else:
            question, answer = text(row, "question"), text(row, "answer")
        kind = "yes_no" if answer.strip().lower() in ("yes", "no") else "open"
        media = (sound(row, "audio", source),)
        name = optional(row, "id") or str(row["_number"])
        return Item(name, question, answer, media=media, groups={"kind": kind})

    return gather(_numbered(rows), parse, source, sha256)


def read_labels(source: Source) -> Items:
    """VocalSound and TUT2017: JSON lines {audio, gt}, or the hub's parquet with the sounds in it.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `rows_of`.
    """
    rows, sha256 = rows_of(source, {".jsonl": json_lines, ".json": json_lines})

    def parse(row: Row) -> Item:
        label = text(row, "gt" if "gt" in row else "answer")
        return Item(str(row["_number"]), "", label, media=(sound(row, "audio", source),), groups={"label": label})

    return gather(_numbered(rows), parse, source, sha256)


def _numbered(rows: Iterator[Placed]) -> Iterator[Placed]:
    for number, (place, row) in enumerate(rows):
        yield place, row if isinstance(row, BadRow) else {**row, "_number": number}


def _first_turns(row: Row) -> tuple[str, str]:
    turns = row.get("conversations")
    if not isinstance(turns, list) or len(turns) < 2 or not all(isinstance(turn, Mapping) for turn in turns):
        raise BadRow("conversations is no list of at least two turns")
    said = [_said(turn, speakers) for turn, speakers in zip(turns, (_HUMAN, _MODEL), strict=False)]
    return said[0], said[1]


def _said(turn: Mapping[str, Any], speakers: tuple[str, ...]) -> str:
    if turn.get("from") not in speakers:
        raise BadRow(f"a turn is from {turn.get('from')!r}, expected {' or '.join(speakers)}")
    value = text(turn, "value")
    for mark in MARKS:
        value = value.replace(mark, "")
    return value.strip()


def _media(row: Row, source: Source) -> tuple[Media, ...]:
    found: list[Media] = []
    for kind in get_args(Kind):
        names = row.get(kind) or []
        names = [names] if isinstance(names, str) else names
        found += [named(kind, source.folder / str(name)) for name in names]
    if not found:
        raise BadRow("no image, video or audio is named")
    return tuple(found)
