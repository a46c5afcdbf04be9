"""Which of the official VQA files in a folder belong together, to a benchmark and to a split."""

from __future__ import annotations

import re
from pathlib import Path

from tamp_lightning.data.readers.tables import json_content
from tamp_lightning.errors import InputError

ANNOTATIONS = "annotations"
_SPLIT = re.compile(r"(train|val|test)(?:-?(dev|std))?", re.IGNORECASE)


def split_of(name: str | None) -> str:
    """train, val, test, testdev or teststd in a name such as `validation` or `mscoco_test-dev2015`; "" if none is."""
    found = _SPLIT.search(name or "")
    return "".join(filter(None, found.groups())).lower() if found else ""


def pair_of(folder: Path, prefix: str, split: str | None) -> list[Path]:
    """The questions file and, where there is one, the annotations file of a benchmark and split.

    Args:
        folder: holds any number of them.
        prefix: of the benchmark's files: "v2_" for VQAv2, "" for OK-VQA. A file without it is taken by VQAv2 too, if
            it is the only one.
        split: of the recipe, or the benchmark's own on the hub; None = the only one there is.

    Raises:
        InputError: there are no such files, or several; the message names them and what to do.
    """
    files = {path: json_content(path) for path in sorted(folder.glob("*.json"))}
    asked = [p for p, content in files.items() if isinstance(content, dict) and "questions" in content]
    noted = [p for p, content in files.items() if isinstance(content, dict) and ANNOTATIONS in content]
    if not asked:
        raise InputError(f"{folder} holds no file of VQA questions (an object with 'questions')")
    chosen = _one(folder, asked, prefix, split)
    pairs = [p for p in noted if _alike(p, chosen)] or [p for p in noted if len(asked) == len(noted) == 1]
    wanted = split_of(chosen.name)
    if not pairs and not wanted.startswith("test"):
        raise InputError(f"{folder} holds {chosen.name} without its file of annotations")
    if len(pairs) > 1:
        raise InputError(f"{folder} holds several files of annotations for {chosen.name}: {_names(pairs)}; keep one")
    return [chosen, *pairs]


def _one(folder: Path, asked: list[Path], prefix: str, split: str | None) -> Path:
    of_split = [p for p in asked if split_of(p.name) in ("", split_of(split))] if split_of(split) else asked
    if not of_split:
        raise InputError(
            f"{folder} holds no questions of split {split}, but {_names(asked)}: give data.<benchmark>.split"
        )
    own = [p for p in of_split if p.name.startswith("v2_") == (prefix == "v2_")]
    others = [p for p in of_split if prefix == "v2_" and p not in own]
    found = own or others
    if not found:
        raise InputError(f"{folder} holds VQAv2's questions alone ({_names(of_split)}), which OK-VQA does not ask")
    if len(found) > 1:
        raise InputError(f"{folder} holds several files of questions: {_names(found)}; keep one, or give a split")
    return found[0]


def _alike(noted: Path, asked: Path) -> bool:
    v2 = noted.name.startswith("v2_") == asked.name.startswith("v2_")
    return v2 and split_of(noted.name) == split_of(asked.name)


def _names(files: list[Path]) -> str:
    return ", ".join(file.name for file in files)
