"""Where calibration samples come from: easy-VQA, LLaVA json with a media folder, LLaVA-NeXT-Data."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import ProcessorMixin

from tamp_lightning.data import easy_vqa
from tamp_lightning.data.calibration import Messages, Sample, SampleList
from tamp_lightning.data.media import read_frames, read_picture, read_sound
from tamp_lightning.errors import InputError

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
KINDS = {"image": "pictures", "video": "videos", "audio": "sounds"}
FRAMES = 16  # of a video that is decoded here; as many as VideoLLaMA2.1 looks at


def choose(total: int, count: int, seed: int, name: str) -> list[int]:
    """`count` of `total` positions without replacement, in ascending order.

    Raises:
        InputError: there are too few.
    """
    if not 0 < count <= total:
        raise InputError(f"{count} calibration samples wanted, {name} has {total}: ask for 1 to {total}")
    return sorted(random.Random(seed).sample(range(total), count))


def from_easy_vqa(count: int, seed: int, turns: int) -> SampleList:
    """Conversations of up to `turns` questions about pictures of the calibration split.

    Raises:
        InputError: more samples wanted than the split has pictures.
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


def llava_messages(conversations: Iterable[Mapping[str, str]], kinds: Collection[str] = tuple(KINDS)) -> Messages:
    """LLaVA turns ({from, value}) in chat form; placeholders of `kinds` become parts in front of their turn's text.

    Raises:
        InputError: a turn has an unknown speaker or no text.
    """
    placeholder = re.compile(f"<({'|'.join(kinds)})>")
    messages: Messages = []
    for turn in conversations:
        speaker, text = turn.get("from"), turn.get("value")
        if speaker not in ROLES or not isinstance(text, str):
            raise InputError(f"conversation turn from {speaker!r} says {text!r}: expected text from {', '.join(ROLES)}")
        content: list[dict[str, str]] = [{"type": kind} for kind in placeholder.findall(text)]
        content.append({"type": "text", "text": placeholder.sub("", text).strip()})
        messages.append({"role": ROLES[speaker], "content": content})
    return messages


def checked_messages(number: int, conversations: Iterable[Mapping[str, str]], counts: Mapping[str, int]) -> Messages:
    """Turns of a sample in chat form, which have as many placeholders of each kind as `counts` says.

    Raises:
        InputError: a turn is not in LLaVA's form, or the turns name another number.
    """
    messages = llava_messages(conversations, counts)
    parts = [part["type"] for message in messages for part in message["content"]]
    for kind, count in counts.items():
        if parts.count(kind) != count:
            named = f"{parts.count(kind)} <{kind}>"
            raise InputError(f"calibration sample {number} has {count} {KINDS[kind]} but its turns have {named}")
    return messages


def from_llava_json(
    path: Path, media: Path | None, count: int | None, seed: int, processor: ProcessorMixin | None = None
) -> SampleList:
    """Samples of a LLaVA json or jsonl file, with the pictures, videos and sounds that its rows name.

    Videos and sounds are decoded here for a processor with a `video_processor` or `feature_extractor`; a video's own
    sound then comes behind it, unless the row names sounds. Any other processor opens the files itself, as
    VideoLLaMA2's does, a video's own sound included; beside sounds that the row names it gets frames alone.

    Args:
        path: the file; its rows have `conversations` and, as needed, `image`, `video` and `audio`, each one or a list.
        media: folder of the files named in the rows; default: beside `path`.
        count: how many samples; None = all.
        seed: seed of the draw.
        processor: what the samples are made for; None = one that opens videos and sounds itself.

    Raises:
        InputError: the file is missing or not in LLaVA's form, or it has too few samples.
    """
    rows = _read_rows(path)
    chosen = choose(len(rows), len(rows) if count is None else count, seed, str(path))
    folder = media or path.parent

    def make(index: int) -> Sample:
        number, row = chosen[index], rows[chosen[index]]
        files = {kind: _files(number, row, kind, folder) for kind in KINDS}
        counts = {kind: len(named) for kind, named in files.items()}
        messages = checked_messages(number, row["conversations"], counts)
        return _with_media(Sample(number, messages, []), files, processor)

    return SampleList(len(chosen), make)


def _files(number: int, row: Mapping[str, Any], kind: str, folder: Path) -> list[Path]:
    """Files of one kind that a row names.

    Raises:
        InputError: it names something that is no path.
    """
    names = row.get(kind) or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"calibration sample {number} has {kind} {names!r}: expected a path or a list of paths")
    return [folder / name for name in names]


def _with_media(sample: Sample, files: Mapping[str, list[Path]], processor: ProcessorMixin | None) -> Sample:
    """The sample with its media read, or, where the processor reads them, found.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    pictures = [read_picture(file) for file in files["image"]]
    listener = getattr(processor, "feature_extractor", None)
    frames_only = hasattr(processor, "video_processor") or bool(files["audio"])
    videos = [_frames(file) if frames_only else _found(file, "video") for file in files["video"]]
    if listener is None:
        return replace(sample, images=pictures, videos=videos, audio=[_found(f, "sound") for f in files["audio"]])
    messages = sample.messages if files["audio"] else _heard(sample.messages)
    sounds = [read_sound(file, listener.sampling_rate) for file in files["audio"] or files["video"]]
    return replace(sample, messages=messages, images=pictures, videos=videos, audio=sounds)


def _frames(file: Path) -> np.ndarray:
    """Frames of a video, uint8 [frames,h,w,3]."""
    return np.stack([np.asarray(picture) for picture in read_frames(file, FRAMES).pictures])


def _found(file: Path, kind: str) -> str:
    if not file.exists():
        raise InputError(f"cannot read {kind} {file}: there is no such file")
    return str(file)


def _heard(messages: Messages) -> Messages:
    """The same turns with a sound behind every video."""
    behind = {"video": [{"type": "audio"}]}
    return [
        {**message, "content": [p for part in message["content"] for p in (part, *behind.get(part["type"], []))]}
        for message in messages
    ]


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text()
        rows = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"cannot read calibration file {path}: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(r, dict) and "conversations" in r for r in rows):
        raise InputError(f"{path} is not a list of objects with 'conversations', the form of LLaVA's json")
    return rows


def from_llava_next_data(path: str, subset: str | None, count: int, seed: int, buffer: int = 4) -> SampleList:
    """Samples of LLaVA-NeXT-Data (parquet; hub id or local folder), one slice of it, streamed.

    The data set is hundreds of gigabytes: shards are visited in an order drawn from `seed`, row groups without the
    slice are skipped, and reading stops when a shuffle buffer of `buffer * count` rows and the samples are filled.

    Raises:
        InputError: the slice has too few rows.
    """
    from datasets import load_dataset

    kind = {"path": "parquet", "data_files": f"{path}/**/*.parquet"} if Path(path).is_dir() else {"path": path}
    wanted = None if subset is None else [("data_source", "==", subset)]
    stream = load_dataset(**kind, split="train", streaming=True, filters=wanted)
    rows = list(stream.shuffle(seed=seed, buffer_size=buffer * count).take(count))
    if len(rows) < count:
        raise InputError(f"{count} calibration samples wanted, {path} has {len(rows)} of data_source {subset!r}")

    def make(index: int) -> Sample:
        row = rows[index]
        pictures = [] if row.get("image") is None else [row["image"].convert("RGB")]
        return Sample(index, checked_messages(index, row["conversations"], {"image": len(pictures)}), pictures)

    return SampleList(count, make)
