"""Questions about sounds: LLaVA-style JSON (MUSIC-AVQA, AVInstruct, ClothoAQA), ClothoAQA, VocalSound, TUT2017."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import get_args

from tamp_lightning.data.chats import Chat, read_chat
from tamp_lightning.data.readers.fields import named, optional, sound, text
from tamp_lightning.data.readers.item import BadRow, Item, Items, Kind, Placed, Row, Source, gather
from tamp_lightning.data.readers.tables import json_lines, json_rows, rows_of


def read_conversations(source: Source) -> Items:
    """Conversations about media, in any form of `read_chat`; the first answer counts.

    Rows may share an id, which then often is that of their video; the second question of an id is called id/2.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `rows_of`.
    """
    rows, sha256 = rows_of(source, {".json": json_rows, ".jsonl": json_lines})

    def parse(row: Row) -> Item:
        chat = read_chat(row, untagged=True)
        question, answer = _first_turns(chat)
        media = tuple(named(kind, source.folder / name) for kind in get_args(Kind) for name in chat.media[kind])
        if not media:
            raise BadRow("no image, video or audio is named")
        return Item(names(optional(row, "id") or optional(row, "question_id"), row), question, answer, media=media)

    names = _Names()
    return gather(_numbered(rows), parse, source, sha256)


def read_clothoaqa(source: Source) -> Items:
    """ClothoAQA: LLaVA-style JSON, or the hub's parquet with the sounds in it.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `rows_of`.
    """
    rows, sha256 = rows_of(source, {".json": json_rows, ".jsonl": json_lines})

    def parse(row: Row) -> Item:
        if "conversations" in row or "messages" in row:
            question, answer = _first_turns(read_chat(row, untagged=True))
        else:
            question, answer = text(row, "question"), text(row, "answer")
        kind = "yes_no" if answer.strip().lower() in ("yes", "no") else "open"
        media = (sound(row, "audio", source),)
        return Item(names(optional(row, "id"), row), question, answer, media=media, groups={"kind": kind})

    names = _Names()
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


class _Names:
    """A name for each question: its id, with a number where an earlier question had the same, else its position."""

    def __init__(self) -> None:
        self.used: Counter[str] = Counter()

    def __call__(self, given: str, row: Row) -> str:
        if not given:
            return str(row["_number"])
        self.used[given] += 1
        return given if self.used[given] == 1 else f"{given}/{self.used[given]}"


def _first_turns(chat: Chat) -> tuple[str, str]:
    """The first thing the user says, and the first the assistant says, without their media."""
    turns = [turn for turn in chat.messages if turn["role"] != "system"][:2]
    if [turn["role"] for turn in turns] != ["user", "assistant"]:
        raise BadRow(f"the turns begin with {', '.join(t['role'] for t in turns)}: expected a user and an assistant")
    said = ["".join(part.get("text", "") for part in turn["content"]).strip() for turn in turns]
    if not all(said):
        raise BadRow("the first question or answer is empty")
    return said[0], said[1]
