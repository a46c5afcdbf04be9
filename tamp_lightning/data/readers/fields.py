"""Fields of a row, checked: every function raises BadRow with the field's name."""

from __future__ import annotations

import ast
import base64
import binascii
import math
import string
from pathlib import Path
from typing import Any

from tamp_lightning.data.readers.item import BadRow, Kind, Media, Row, Source

VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".gif")


def text(row: Row, key: str) -> str:
    """A text that is not empty; numbers become text."""
    value = optional(row, key)
    if not value:
        raise BadRow(f"{key} is {'empty' if key in row else 'missing'}")
    return value


def optional(row: Row, key: str) -> str:
    """A text, "" if it is missing, empty or the "nan" that pandas writes."""
    value = row.get(key)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, dict | list) or callable(value):
        raise BadRow(f"{key} is {type(value).__name__}, expected text")
    value = str(value).strip()
    return "" if value.lower() == "nan" else value


def number(row: Row, key: str) -> int:
    """A whole number, also as text."""
    try:
        return int(text(row, key))
    except ValueError as error:
        if isinstance(error, BadRow):
            raise
        raise BadRow(f"{key} is {row.get(key)!r}, expected a whole number") from None


def texts(row: Row, key: str) -> tuple[str, ...]:
    """A list of texts, also as text that holds a Python list (MMMU)."""
    value = row.get(key)
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            raise BadRow(f"{key} is {value!r}, expected a list") from None
    if not isinstance(value, list | tuple) or not value or any(entry is None for entry in value):
        raise BadRow(f"{key} is {value!r}, expected a list")
    return tuple(str(entry) for entry in value)


def answers(row: Row, key: str = "answers") -> tuple[str, ...]:
    """The answers people gave: a list of texts, or of objects with an `answer`."""
    value = row.get(key)
    if not isinstance(value, list) or not value:
        raise BadRow(f"{key} is {value!r}, expected a list (a test split without answers cannot be scored)")
    given = [entry.get("answer") if isinstance(entry, dict) else entry for entry in value]
    said = tuple(answer for answer in given if isinstance(answer, str))
    if len(said) < len(given):
        raise BadRow(f"{key} holds something that is no text")
    return said


def option_number(value: Any, count: int) -> int:
    """Number of an option, given as a letter."""
    letter = str(value or "").strip().strip("().").upper()
    found = string.ascii_uppercase.find(letter) if len(letter) == 1 else -1
    if not 0 <= found < count:
        raise BadRow(f"answer is {value!r}, expected one of the letters of {count} options")
    return found


def option_index(row: Row, key: str, count: int) -> int:
    """Number of an option, counted from 0."""
    found = number(row, key)
    if not 0 <= found < count:
        raise BadRow(f"{key} is {found}, expected 0 to {count - 1}")
    return found


def option_text(row: Row, key: str, options: tuple[str, ...]) -> int:
    """Number of an option, given as its text."""
    answer = text(row, key)
    if answer not in options:
        raise BadRow(f"{key} is {answer!r}, which is none of the options")
    return options.index(answer)


def yes_no(row: Row, key: str) -> str:
    """ "yes" or "no"."""
    answer = text(row, key).lower().rstrip(".")
    if answer not in ("yes", "no"):
        raise BadRow(f"{key} is {row[key]!r}, expected yes or no")
    return answer


def picture(row: Row, key: str, source: Source) -> Media:
    """The picture in a data set's cell, or the file that a text names."""
    value = row.get(key)
    if callable(value):
        return Media("image", value)
    return named("image", source.folder / text(row, key))


def sound(row: Row, key: str, source: Source) -> Media:
    """The sound in a data set's cell, or the file that a text names."""
    value = row.get(key)
    return Media("audio", value) if callable(value) else named("audio", source.folder / text(row, key))


def named(kind: Kind, path: Path, start: float | None = None, end: float | None = None) -> Media:
    """A file, or a folder of frames, that must exist."""
    if not path.exists():
        raise BadRow(f"{kind} {path} does not exist")
    return Media(kind, path, start, end)


def video(folder: Path, name: str) -> Media:
    """A video in `folder` or its subfolder `data` or `videos`, with or without its ending in `name`."""
    for place in (folder, folder / "data", folder / "videos"):
        for ending in ("", *VIDEOS):
            path = place / f"{name}{ending}"
            if path.is_file() or (not ending and name and path.is_dir()):
                return Media("video", path)
    raise BadRow(f"video {name!r} is not in {folder} ({', '.join(VIDEOS)}): unpack the videos there, or give media")


def in_base64(value: str, key: str = "image") -> Media:
    """A picture written as base64."""
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise BadRow(f"{key} is no base64: {value[:20]!r}...") from None
    return Media("image", lambda: content)
