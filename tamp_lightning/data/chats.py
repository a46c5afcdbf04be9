"""Rows of conversation files in chat form: LLaVA's json, and `messages` as LLaMA-Factory and ms-swift write them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tamp_lightning.data.readers.item import BadRow

Messages = list[dict[str, Any]]
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
KINDS = {"image": "pictures", "video": "videos", "audio": "sounds"}
FORMS = "'conversations' (from, value) or 'messages' (role, content)"


@dataclass(frozen=True)
class Chat:
    """One conversation and the media it names."""

    messages: Messages
    """Roles and contents of typed parts, in the form of a chat template."""
    media: dict[str, list[str]]
    """Kind -> one name per part of that kind, in the order of the parts."""


def read_chat(row: Mapping[str, Any], *, untagged: bool = False) -> Chat:
    """A row in chat form.

    Turns stand under `conversations` or `messages`, as {from, value} or {role, content}; content is text or a list of
    typed parts; `system` may stand beside them. Media stand under `image`, `images`, `video`, `videos`, `audio`,
    `audios`, one or a list, or in the parts themselves. `<image>`, `<video>` and `<audio>` in a text are placeholders
    if the row names media of that kind, else text.

    Placeholders stay where they stand, but for the only one of a turn in a row with LLaVA's own keys (`image`, ...),
    which goes in front as in LLaVA's loader. White space around a turn, and after media that open it, goes.

    Args:
        row: of the file.
        untagged: media of a kind without any placeholder are taken, before the first turn of the user, as
            benchmarks' files have it; else they are refused.

    Raises:
        BadRow: the row is in none of these forms, or its turns name another number of media than it does.
    """
    given = {kind: _named(row, kind) for kind in KINDS}
    turns = _turns(row)
    tags = _Tags([kind for kind, names in given.items() if names and not _has_bare_parts(turns, kind)], _is_llava(row))
    messages: Messages = []
    for role, content in turns:
        parts = tags.split(content) if isinstance(content, str) else [p for c in content for p in _part(c, tags)]
        messages.append({"role": role, "content": parts})
    return Chat(*_placed(_in_front(messages, given) if untagged else messages, given))


def questions_on(kind: str, asked: Iterable[tuple[str, str]]) -> Messages:
    """A conversation of questions and their answers, in text, about one medium that stands before the first question.

    Args:
        kind: of the medium, `image` or `video`.
        asked: questions and answers, in order.
    """
    messages: Messages = []
    for question, answer in asked:
        medium = [] if messages else [{"type": kind}]
        messages.append({"role": "user", "content": [*medium, {"type": "text", "text": question}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return messages


def _is_llava(row: Mapping[str, Any]) -> bool:
    return "conversations" in row and any(row.get(kind) for kind in KINDS)


def _turns(row: Mapping[str, Any]) -> list[tuple[str, str | list[Mapping[str, Any]]]]:
    given = row["conversations"] if "conversations" in row else row.get("messages")
    if not isinstance(given, list) or not given:
        raise BadRow(f"no turns: expected {FORMS}")
    system = row.get("system")
    first = [("system", system.strip())] if isinstance(system, str) and system.strip() else []
    return [*first, *map(_turn, given)]


def _turn(turn: Any) -> tuple[str, str | list[Mapping[str, Any]]]:
    if not isinstance(turn, Mapping):
        raise BadRow(f"a turn is {turn!r}: expected {FORMS}")
    speaker = turn.get("from", turn.get("role"))
    content = turn.get("value", turn.get("content"))
    good = isinstance(content, str) or (isinstance(content, list) and all(isinstance(c, Mapping) for c in content))
    if not isinstance(speaker, str) or speaker not in ROLES or not good:
        raise BadRow(f"conversation turn from {speaker!r} says {content!r}: expected text from {', '.join(ROLES)}")
    return ROLES[speaker], content


def _named(row: Mapping[str, Any], kind: str) -> list[str]:
    """Names under `image` and `images`, and so on."""
    return [name for key in (kind, f"{kind}s") for name in _names(row.get(key), key)]


def _names(value: Any, key: str) -> Iterator[str]:
    for entry in value if isinstance(value, list) else [] if value is None or value == "" else [value]:
        name = entry.get("path") if isinstance(entry, Mapping) else entry
        if not isinstance(name, str) or not name:
            raise BadRow(f"has {key} {value!r}: expected a path or a list of paths")
        yield name


@dataclass(frozen=True)
class _Tags:
    """What `<kind>` in a text is: a placeholder for some kinds, text for the others."""

    kinds: list[str]
    alone_in_front: bool

    def split(self, text: str) -> list[dict[str, str]]:
        """Parts of a turn that is one text; at least one of them is text."""
        pieces = re.split(f"<({'|'.join(self.kinds)})>", text) if self.kinds else [text]
        if len(pieces) == 3 and self.alone_in_front:
            pieces = ["", pieces[1], pieces[0] + pieces[2]]
        parts: list[dict[str, str]] = []
        for number, piece in enumerate(pieces):
            if number % 2:
                parts.append({"type": piece})
                continue
            opens = not any(part["type"] == "text" for part in parts)
            said = piece.lstrip() if opens else piece
            said = said.rstrip() if number == len(pieces) - 1 else said
            parts += [{"type": "text", "text": said}] if said else []
        return parts if any(part["type"] == "text" for part in parts) else [*parts, {"type": "text", "text": ""}]


def _has_bare_parts(turns: Iterable[tuple[str, Any]], kind: str) -> bool:
    """Whether parts take the row's media of a kind, so that tags in texts do not."""
    parts = (part for _, content in turns if isinstance(content, list) for part in content)
    return any(part.get("type") == kind and _own(part, kind) is None for part in parts)


def _own(part: Mapping[str, Any], kind: str) -> Any:
    """What a part names itself: {type: image, image: name}, {type: image_url, image_url: {url: name}}, {path: name}."""
    found = next((part[key] for key in (kind, f"{kind}_url", "path", "url") if part.get(key)), None)
    return found.get("url") if isinstance(found, Mapping) else found


def _part(part: Mapping[str, Any], tags: _Tags) -> list[dict[str, Any]]:
    kind = str(part.get("type", "text")).removesuffix("_url").removeprefix("input_")
    if kind in KINDS:
        own = _own(part, kind)
        if own is not None and not isinstance(own, str):
            raise BadRow(f"a part of type {kind} names {own!r}: expected a path")
        return [{"type": kind} if own is None else {"type": kind, "own": own}]
    if kind != "text" or not isinstance(part.get("text"), str):
        raise BadRow(f"a part of a turn is {dict(part)!r}: expected type text, {', '.join(KINDS)}")
    return tags.split(part["text"]) if tags.kinds else [{"type": "text", "text": part["text"]}]


def _in_front(messages: Messages, given: Mapping[str, list[str]]) -> Messages:
    """The messages with parts for media that have none yet."""
    types = {part["type"] for message in messages for part in message["content"]}
    parts = [{"type": kind} for kind, names in given.items() for _ in names if kind not in types]
    asked = next((message for message in messages if message["role"] == "user"), None)
    if asked is not None:
        asked["content"] = [*parts, *asked["content"]]
    return messages


def _placed(messages: Messages, given: Mapping[str, list[str]]) -> tuple[Messages, dict[str, list[str]]]:
    """The messages with bare parts, and the name that belongs to each."""
    parts = [part for message in messages for part in message["content"]]
    media: dict[str, list[str]] = {}
    for kind, names in given.items():
        open_parts = [part for part in parts if part["type"] == kind and "own" not in part]
        if len(open_parts) != len(names):
            raise BadRow(f"has {len(names)} {KINDS[kind]} but its turns have {len(open_parts)} <{kind}>")
        rest = iter(names)
        media[kind] = [part.pop("own") if "own" in part else next(rest) for part in parts if part["type"] == kind]
    return messages, media
