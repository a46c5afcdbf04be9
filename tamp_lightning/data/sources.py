"""Where calibration samples come from: easy-VQA, a file of conversations with a media folder, LLaVA-NeXT-Data."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import ProcessorMixin

from tamp_lightning.data import easy_vqa
from tamp_lightning.data.calibration import Sample, SampleList
from tamp_lightning.data.chat_files import REMEDY, BadRows, ChatFile, warn_of
from tamp_lightning.data.chats import questions_on, read_chat
from tamp_lightning.data.draw import Pool
from tamp_lightning.data.media import read_picture
from tamp_lightning.data.readers.item import Bad, BadRow
from tamp_lightning.errors import InputError


def easy_vqa_pool(seed: int, turns: int) -> Pool:
    """Conversations of up to `turns` questions, drawn by `seed`, about each picture of the calibration split.

    Raises:
        FileNotFoundError: easy-VQA is not installed.
    """
    pictures = list(easy_vqa.by_picture(easy_vqa.questions("calibration")).items())

    def make(position: int) -> Sample:
        number, questions = pictures[position]
        asked = random.Random(f"{seed}/{number}").sample(questions, min(turns, len(questions)))
        messages = questions_on("image", ((q.text, q.answer) for q in asked))
        return Sample(number, messages, [easy_vqa.load_picture("calibration", number)])

    return Pool("easy-VQA's calibration split", len(pictures), make)


def from_llava_json(
    path: Path,
    media: Path | None,
    count: int | None,
    seed: int,
    processor: ProcessorMixin | None = None,
    bad_rows: BadRows = "refuse",
) -> SampleList:
    """Samples of a json or jsonl file of conversations (`read_chat`), with the media that its rows name.

    Videos and sounds are decoded here for a processor with a `video_processor` or `feature_extractor`; a video's own
    sound then comes after it, unless the row names sounds. Any other processor opens the files itself, as
    VideoLLaMA2's does, a video's own sound included; beside sounds that the row names it gets frames alone.

    Args:
        path: the file, jsonl by its ending.
        media: folder of the files named in the rows; default: beside `path`.
        count: how many samples; None = all.
        seed: seed of the draw.
        processor: what the samples are made for; None = one that opens videos and sounds itself.
        bad_rows: a row that is not what it should be or names a file that is missing or damaged is an error, or is left
            out of the draw, counted (`SampleList.bad`) and warned of. All rows are looked at then, and the media of
            those drawn are read one time more; with `count` None damaged media are found as they come, and the next
            row takes the place of theirs.

    Raises:
        InputError: the file is missing or holds no rows, or too few; a row is bad and `bad_rows` says to refuse it.
    """
    file = ChatFile(path, media or path.parent, processor)
    return file.draw(count, seed) if bad_rows == "refuse" else file.draw_good(count, seed)


def from_llava_next_data(
    path: str, subset: str | None, count: int, seed: int, buffer: int = 4, bad_rows: BadRows = "refuse"
) -> SampleList:
    """Samples of LLaVA-NeXT-Data (parquet; hub id or local folder), one slice of it, streamed.

    The data set is hundreds of gigabytes: shards are visited in an order drawn from `seed`, row groups without the
    slice are skipped, and reading stops when a shuffle buffer of `buffer * count` rows and the samples are filled.

    Raises:
        InputError: the slice has too few rows.
    """
    from datasets import load_dataset

    kind = {"path": "parquet", "data_files": f"{path}/**/*.parquet"} if Path(path).is_dir() else {"path": path}
    wanted = None if subset is None else [("data_source", "==", subset)]
    stream = load_dataset(**kind, split="train", streaming=True, filters=wanted).decode(False)
    bad: list[Bad] = []
    samples: list[tuple[Sample, bytes | None]] = []
    for number, row in enumerate(stream.shuffle(seed=seed, buffer_size=buffer * count)):
        try:
            samples.append(_next_data_sample(len(samples), row))
        except ValueError as error:
            if bad_rows == "refuse":
                raise BadRow(f"{path} row {row.get('id', number)!r}: {error} ({REMEDY})") from None
            bad.append(Bad(f"{path} row {row.get('id', number)!r}", str(error)))
        if len(samples) == count:
            break
    if len(samples) < count:
        raise InputError(f"{count} calibration samples wanted, {path} has {len(samples)} of data_source {subset!r}")
    warn_of(bad, path)

    def make(index: int) -> Sample:
        sample, held = samples[index]
        return sample if held is None else replace(sample, images=[read_picture(held)])

    return SampleList(count, make, bad)


def _next_data_sample(number: int, row: Mapping[str, Any]) -> tuple[Sample, bytes | None]:
    """The sample without its picture, and the picture's bytes, which can be read."""
    cell = row.get("image")
    held = None if cell is None else cell.get("bytes") or Path(str(cell.get("path"))).read_bytes()
    chat = read_chat({"conversations": row["conversations"], "image": [] if held is None else ["held"]})
    if held is not None:
        read_picture(held)
    return Sample(number, chat.messages, []), held
