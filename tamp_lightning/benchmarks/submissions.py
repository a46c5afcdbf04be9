"""Predictions in the forms that the benchmarks' servers take, for test splits whose answers are not public."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tamp_lightning.data.readers.item import Item
from tamp_lightning.errors import InputError
from tamp_lightning.metrics import extractor

Submission = tuple[str, bytes]
"""Name and content of a file."""
Form = Callable[[Sequence[Item], Sequence[str]], Submission]
"""What makes it of items and their replies, which are in the same order; a question that was not asked has ""."""


def _json(content: Any) -> Submission:
    return "submission.json", (json.dumps(content, indent=1) + "\n").encode()


def vqa(items: Sequence[Item], replies: Sequence[str]) -> Submission:
    """VQAv2 and TextVQA on EvalAI: [{question_id, answer}]."""
    numbers = [int(item.id) if item.id.isdecimal() else item.id for item in items]
    return _json([{"question_id": n, "answer": reply} for n, reply in zip(numbers, replies, strict=True)])


def vizwiz(items: Sequence[Item], replies: Sequence[str]) -> Submission:
    """VizWiz on EvalAI: [{image, answer}]."""
    names = [item.id if Path(item.id).suffix else f"{item.id}.jpg" for item in items]
    return _json([{"image": name, "answer": reply} for name, reply in zip(names, replies, strict=True)])


def mmbench(items: Sequence[Item], replies: Sequence[str]) -> Submission:
    """MMBench's server: a table (xlsx) of index, question, hint, category, A to E and prediction."""
    import pandas as pd

    rows = [
        {"index": int(item.id), "question": item.question, "hint": item.hint, "category": item.groups["category"]}
        | dict(zip("ABCDE", (*item.options, *[""] * 5), strict=False))
        | {"prediction": reply}
        for item, reply in zip(items, replies, strict=True)
    ]
    held = io.BytesIO()
    with pd.ExcelWriter(held, engine="openpyxl") as writer:
        pd.DataFrame(rows).to_excel(writer, index=False)
    return "submission.xlsx", held.getvalue()


def mmmu(items: Sequence[Item], replies: Sequence[str]) -> Submission:
    """MMMU on EvalAI: {id: letter, or the reply where there are no options or it names none}."""
    find = extractor("mmmu")

    def answer(item: Item, reply: str) -> str:
        found = find(reply, item.options) if item.options else -1
        return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[found] if found >= 0 else reply

    return _json({item.id: answer(item, reply) for item, reply in zip(items, replies, strict=True)})


def egoschema(items: Sequence[Item], replies: Sequence[str]) -> Submission:
    """EgoSchema's server: a csv of q_uid and answer, the option's number; -1 where a reply names none."""
    find, held = extractor("videollama2_egoschema"), io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    writer.writerow(["q_uid", "answer"])
    writer.writerows([_video(item), find(reply, item.options)] for item, reply in zip(items, replies, strict=True))
    return "submission.csv", held.getvalue().encode()


def perceptiontest(items: Sequence[Item], replies: Sequence[str]) -> Submission:
    """PerceptionTest's server: {video: [{id, answer_id, answer}]}; answer_id is -1 where a reply names no option."""
    find = extractor("videollama2_perceptiontest")
    videos: dict[str, list[dict[str, Any]]] = {}
    for item, reply in zip(items, replies, strict=True):
        found, (name, _, number) = find(reply, item.options), item.id.rpartition("/")
        row = {"id": int(number), "answer_id": found, "answer": item.options[found] if found >= 0 else ""}
        videos.setdefault(name, []).append(row)
    return _json(videos)


def _video(item: Item) -> str:
    content = item.media[0].content
    return content.stem if isinstance(content, Path) else item.id


def check_submission(name: str, form: Form | None) -> None:
    """Refuse to ask questions without answers where nobody would take the replies, or they could not be written.

    Raises:
        InputError: names the reason and the remedy.
    """
    if form is None:
        raise InputError(f"no row of {name} has an answer, and no server takes its replies: use a split with answers")
    if form is mmbench and importlib.util.find_spec("openpyxl") is None:
        raise InputError(f"{name} has no answers; its server takes xlsx files: pip install 'tamp-lightning[xlsx]'")
