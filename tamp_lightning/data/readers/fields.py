"""Fields of a row, checked: every function raises BadRow with the field's name."""

from __future__ import annotations

import ast
import base64
import binascii
import math
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tamp_lightning.data.media import PICTURES, VIDEOS
from tamp_lightning.data.readers.item import BadRow, Kind, Media, Row, Source


def text(row: Row, key: str) -> str:
    """A text that is not empty; numbers become text."""
    value = optional(row, key)
    if not value:
        raise BadRow(f"{key} is {'empty' if key in row else 'missing'}")
    return value


def optional(row: Row, key: str) -> str:
    """A text without outer white space, "" if it is missing or empty."""
    value = row.get(key)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, dict | list) or callable(value):
        raise BadRow(f"{key} is {type(value).__name__}, expected text")
    return str(value).strip()


def said(row: Row, key: str) -> str:
    """A text that is not blank, its outer white space kept: prompts show it as the data set has it."""
    value = row.get(key)
    return value if text(row, key) and isinstance(value, str) else text(row, key)


def number(row: Row, key: str) -> int:
    """A whole number, also as text, or with a zero after the point, as tables with gaps hold whole numbers."""
    try:
        return int(text(row, key).removesuffix(".0"))
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


def answers(row: Row, key: str = "answers") -> tuple[str, ...] | None:
    """The answers people gave: a list of texts, or of objects with an `answer`; None where the row has none."""
    value = row.get(key)
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        raise BadRow(f"{key} is {value!r}, expected a list")
    given = [entry.get("answer") if isinstance(entry, dict) else entry for entry in value]
    said = tuple(answer for answer in given if isinstance(answer, str))
    if len(said) < len(given):
        raise BadRow(f"{key} holds something that is no text")
    if len(said) < 2:
        raise BadRow(f"{key} has one entry: VQA accuracy compares people with one another and needs two")
    return said


def option_number(value: Any, count: int) -> int | None:
    """Number of an option, given as a letter; None where there is none (MMMU writes "?")."""
    letter = str(value or "").strip().strip("().?").upper()
    if not letter:
        return None
    found = string.ascii_uppercase.find(letter) if len(letter) == 1 else -1
    if not 0 <= found < count:
        raise BadRow(f"answer is {value!r}, expected one of the letters of {count} options")
    return found


def option_index(row: Row, key: str, count: int) -> int | None:
    """Number of an option, counted from 0; None where the row has none."""
    if not optional(row, key):
        return None
    found = number(row, key)
    if not 0 <= found < count:
        raise BadRow(f"{key} is {found}, expected 0 to {count - 1}")
    return found


def option_text(row: Row, key: str, options: tuple[str, ...]) -> int:
    """Number of an option, given as its text."""
    answer, bare = text(row, key), [option.strip() for option in options]
    exact = str(row[key])
    if answer not in bare:
        raise BadRow(f"{key} is {answer!r}, which is none of the options")
    return options.index(exact) if exact in options else bare.index(answer)


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


def found(folder: Path, name: str, endings: tuple[str, ...]) -> Path | None:
    """A file in `folder` by its name or, whatever its ending in `name` is, with one of `endings` in any case."""
    stem = name[: name.rindex(".")] if name.lower().endswith(endings) else name
    forms = [name, *(f"{stem}{form}" for ending in endings for form in (ending, ending.upper()))]
    return next((folder / form for form in forms if form and (folder / form).is_file()), None)


def image(folder: Path, name: str) -> Media:
    """A picture in `folder`, with or without its ending in `name`."""
    path = found(folder, name, PICTURES)
    if path is None:
        raise BadRow(f"image {folder / name} does not exist ({', '.join(PICTURES)})")
    return Media("image", path)


def video(folders: Path | Sequence[Path], name: str, start: float | None = None, end: float | None = None) -> Media:
    """A video, or a folder of frames, with or without its ending in `name`.

    It is looked for in the folders, of one folder also in its subfolders `data` and `videos`.
    """
    one = isinstance(folders, Path)
    places = [folders, folders / "data", folders / "videos"] if isinstance(folders, Path) else list(folders)
    for place in places:
        path = found(place, name, VIDEOS)
        path = place / name if path is None and name and (place / name).is_dir() else path
        if path is not None:
            return Media("video", path, start, end)
    where = str(folders) if one else " or ".join(map(str, places))
    raise BadRow(f"video {name!r} is not in {where} ({', '.join(VIDEOS)}): unpack the videos there, or give media")


def in_base64(value: str, key: str = "image") -> Media:
    """A picture written as base64."""
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise BadRow(f"{key} is no base64: {value[:20]!r}...") from None
    return Media("image", lambda: content)
