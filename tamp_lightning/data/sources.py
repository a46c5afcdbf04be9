"""Where calibration samples come from: easy-VQA, LLaVA json with a media folder, LLaVA-NeXT-Data."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from tamp_lightning.data import easy_vqa
from tamp_lightning.data.calibration import Messages, Sample, SampleList

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
PLACEHOLDER = "<image>"


def choose(total: int, count: int, seed: int, name: str) -> list[int]:
    """`count` of `total` positions without replacement, in ascending order.

    Raises:
        ValueError: there are too few.
    """
    if not 0 < count <= total:
        raise ValueError(f"{count} calibration samples wanted, {name} has {total}: ask for 1 to {total}")
    return sorted(random.Random(seed).sample(range(total), count))


def from_easy_vqa(count: int, seed: int, turns: int) -> SampleList:
    """Conversations of up to `turns` questions about pictures of the calibration split.

    Raises:
        ValueError: more samples wanted than the split has pictures.
        FileNotFoundError: easy-VQA is not installed.
    """
    pictures = list(easy_vqa.by_picture(easy_vqa.questions("calibration")).items())
    chosen = choose(len(pictures), count, seed, "easy-VQA's calibration split")

    def make(index: int) -> Sample:
        number, questions = pictures[chosen[index]]
        rng = random.Random(f"{seed}/{number}")
        asked = rng.sample(questions, min(turns, len(questions)))
        messages: Messages = []
        for k, q in enumerate(asked):
            picture = [{"type": "image"}] if k == 0 else []
            messages.append({"role": "user", "content": [*picture, {"type": "text", "text": q.text}]})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": q.answer}]})
        return Sample(number, messages, [easy_vqa.load_picture("calibration", number)])

    return SampleList(len(chosen), make)


def llava_messages(conversations: Iterable[Mapping[str, str]]) -> Messages:
    """LLaVA turns ({from, value}) in chat form; `<image>` becomes an image part in front of its turn's text.

    Raises:
        ValueError: a turn has an unknown speaker or no text.
    """
    messages: Messages = []
    for turn in conversations:
        speaker, text = turn.get("from"), turn.get("value")
        if speaker not in ROLES or not isinstance(text, str):
            raise ValueError(f"conversation turn from {speaker!r} says {text!r}: expected text from {', '.join(ROLES)}")
        content: list[dict[str, str]] = [{"type": "image"}] * text.count(PLACEHOLDER)
        content.append({"type": "text", "text": text.replace(PLACEHOLDER, "").strip()})
        messages.append({"role": ROLES[speaker], "content": content})
    return messages


def llava_sample(number: int, conversations: Iterable[Mapping[str, str]], pictures: list[Image.Image]) -> Sample:
    """A sample of LLaVA turns and their pictures.

    Raises:
        ValueError: a turn is not in LLaVA's form, or the turns do not name as many pictures as there are.
    """
    messages = llava_messages(conversations)
    named = sum(part["type"] == "image" for message in messages for part in message["content"])
    if named != len(pictures):
        raise ValueError(
            f"calibration sample {number} has {len(pictures)} pictures but its turns have {named} {PLACEHOLDER}"
        )
    return Sample(number, messages, pictures)


def open_picture(path: Path) -> Image.Image:
    """A picture as RGB, fully read.

    Raises:
        ValueError: the file is missing or no picture.
    """
    try:
        return Image.open(path).convert("RGB")
    except (OSError, SyntaxError) as error:
        raise ValueError(f"cannot read picture {path}: {error}") from None


def from_llava_json(path: Path, media: Path | None, count: int, seed: int) -> SampleList:
    """Samples of a LLaVA json or jsonl file; pictures are looked up in the `media` folder (default: beside it).

    Raises:
        ValueError: the file is missing or not in LLaVA's form, or it has too few samples.
    """
    rows = _read_rows(path)
    chosen = choose(len(rows), count, seed, str(path))
    folder = media or path.parent

    def make(index: int) -> Sample:
        row = rows[chosen[index]]
        names = row.get("image") or []
        names = [names] if isinstance(names, str) else names
        return llava_sample(chosen[index], row["conversations"], [open_picture(folder / n) for n in names])

    return SampleList(len(chosen), make)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text()
        rows = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"cannot read calibration file {path}: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(r, dict) and "conversations" in r for r in rows):
        raise ValueError(f"{path} is not a list of objects with 'conversations', the form of LLaVA's json")
    return rows


def from_llava_next_data(path: str, subset: str | None, count: int, seed: int, buffer: int = 4) -> SampleList:
    """Samples of LLaVA-NeXT-Data (parquet; hub id or local folder), one slice of it, streamed.

    The data set is hundreds of gigabytes: shards are visited in an order drawn from `seed`, row groups without the
    slice are skipped, and reading stops when a shuffle buffer of `buffer * count` rows and the samples are filled.

    Raises:
        ValueError: the slice has too few rows.
    """
    from datasets import load_dataset

    kind = {"path": "parquet", "data_files": f"{path}/**/*.parquet"} if Path(path).is_dir() else {"path": path}
    wanted = None if subset is None else [("data_source", "==", subset)]
    stream = load_dataset(**kind, split="train", streaming=True, filters=wanted)
    rows = list(stream.shuffle(seed=seed, buffer_size=buffer * count).take(count))
    if len(rows) < count:
        raise ValueError(f"{count} calibration samples wanted, {path} has {len(rows)} of data_source {subset!r}")

    def make(index: int) -> Sample:
        row = rows[index]
        pictures = [] if row.get("image") is None else [row["image"].convert("RGB")]
        return llava_sample(index, row["conversations"], pictures)

    return SampleList(count, make)
