"""Questions about videos: VideoMME, MVBench, EgoSchema, NExT-QA, PerceptionTest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tamp_lightning.data.readers.fields import (
    option_index,
    option_number,
    option_text,
    optional,
    said,
    text,
    texts,
    video,
)
from tamp_lightning.data.readers.item import BadRow, Item, Items, Media, Placed, Row, Source, gather
from tamp_lightning.data.readers.tables import comma, dataset_rows, json_rows, rows_of, sha256_of
from tamp_lightning.errors import InputError

_LETTERED = re.compile(r"^\(?[A-E][.)]\s*")
# Folder of each task's videos, and whether a question is about a part of its video (OpenGVLab/MVBench).
MVBENCH_TASKS = {
    "action_sequence": ("star/Charades_v1_480", True),
    "action_prediction": ("star/Charades_v1_480", True),
    "action_antonym": ("ssv2_video", False),
    "fine_grained_action": ("Moments_in_Time_Raw/videos", False),
    "unexpected_action": ("FunQA_test/test", False),
    "object_existence": ("clevrer/video_validation", False),
    "object_interaction": ("star/Charades_v1_480", True),
    "object_shuffle": ("perception/videos", False),
    "moving_direction": ("clevrer/video_validation", False),
    "action_localization": ("sta/sta_video", True),
    "scene_transition": ("scene_qa/video", False),
    "action_count": ("perception/videos", False),
    "moving_count": ("clevrer/video_validation", False),
    "moving_attribute": ("clevrer/video_validation", False),
    "state_change": ("perception/videos", False),
    "fine_grained_pose": ("nturgbd", False),
    "character_order": ("perception/videos", False),
    "egocentric_navigation": ("vlnqa", False),
    "episodic_reasoning": ("tvqa/frames_fps3_hq", True),
    "counterfactual_inference": ("clevrer/video_validation", False),
}


def read_videomme(source: Source) -> Items:
    """VideoMME: the hub's parquet, `<videoID>.mp4` and `subtitle/<videoID>.srt` below `media`.

    Groups: duration (short, medium, long), domain, sub_category, task_type. Subtitles are also looked for beside the
    folder of videos and beside the parquet; not every video has spoken words.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `dataset_rows`.
    """
    rows, sha256 = dataset_rows(source)
    folders = _subtitle_folders(source)

    def parse(row: Row) -> Item:
        options = tuple(_LETTERED.sub("", option) for option in texts(row, "options"))
        name = text(row, "videoID")
        return Item(
            id=text(row, "question_id"),
            question=said(row, "question"),
            target=option_number(row.get("answer"), len(options)),
            options=options,
            media=(video(source.folder, name),),
            groups={k: text(row, k) for k in ("duration", "domain", "sub_category", "task_type")},
            subtitles=next((f for folder in folders if (f := folder / f"{name}.srt").is_file()), None),
        )

    return gather(rows, parse, source, sha256)


def _subtitle_folders(source: Source) -> list[Path]:
    beside = Path(str(source.path))
    places = [source.folder, source.folder.parent, *([beside, beside.parent] if beside.exists() else [])]
    return [place / "subtitle" for place in dict.fromkeys(places)]


def read_videomme_subtitles(source: Source) -> Items:
    """As `read_videomme`; how many videos have no subtitles becomes a note.

    Raises:
        InputError: no video has any, as when the folder of subtitles is not where it is looked for.
        BadRow, FileNotFoundError: see `read_videomme`.
    """
    whole = read_videomme(replace(source, limit=None))
    spoken = {item.media[0].content: item.subtitles is not None for item in whole.items}
    lacking = sum(not has for has in spoken.values())
    if lacking == len(spoken):
        places = " or ".join(map(str, _subtitle_folders(source)))
        raise InputError(f"none of {lacking} videos has a file <videoID>.srt in {places}: unpack subtitle.zip there")
    note = f"{lacking} of {len(spoken)} videos have no subtitles and are asked about without"
    return replace(read_videomme(source), notes=(note,) if lacking else ())


def read_mvbench(source: Source) -> Items:
    """MVBench: a folder with `json/<task>.json` and the videos' folders in `video` (or in `media`); group: task.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather`; there is no file of a known task.
    """
    folder = Path(str(source.path))
    files = [f for f in sorted((folder / "json").glob("*.json")) if f.stem in MVBENCH_TASKS]
    if not files:
        raise FileNotFoundError(
            f"{folder / 'json'} holds no task of MVBench, such as action_count.json; download OpenGVLab/MVBench, "
            "unpack its videos, and give the folder as data.mvbench.path"
        )
    videos = Path(source.media) if source.media else folder / "video"

    def parse(row: Row) -> Item:
        task, options = row["_task"], texts(row, "candidates")
        return Item(
            id=f"{task}/{row['_number']}",
            question=said(row, "question"),
            target=option_text(row, "answer", options),
            options=options,
            media=(_mvbench_video(row, task, videos),),
            groups={"task": task},
        )

    return gather(_tasks(files), parse, source, sha256_of(files))


def _tasks(files: list[Path]) -> Iterator[Placed]:
    for file in files:
        for number, (place, row) in enumerate(json_rows(file)):
            yield place, row if isinstance(row, BadRow) else {**row, "_task": file.stem, "_number": number}


def _mvbench_video(row: Row, task: str, videos: Path) -> Media:
    where, bounded = MVBENCH_TASKS[task]
    # the hub's repository has some of the videos in an archive of their own
    places = [videos / where, videos / "data0613" / where]
    if not bounded:
        return video(places, text(row, "video"))
    try:
        start, end = float(text(row, "start")), float(text(row, "end"))
    except ValueError as error:
        if isinstance(error, BadRow):
            raise
        raise BadRow(f"start and end are {row.get('start')!r} and {row.get('end')!r}, expected seconds") from None
    return video(places, text(row, "video"), start, end)


def read_egoschema(source: Source) -> Items:
    """EgoSchema's labelled subset, the hub's parquet; videos `<video_idx>.mp4` below `media`.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `dataset_rows`.
    """
    rows, sha256 = dataset_rows(source)

    def parse(row: Row) -> Item:
        options = tuple(_LETTERED.sub("", option) for option in texts(row, "option"))
        name = text(row, "video_idx")
        target = option_index(row, "answer", len(options))
        number = optional(row, "question_idx") or name
        return Item(number, said(row, "question"), target, options, (video(source.folder, name),))

    return gather(rows, parse, source, sha256)


def read_nextqa(source: Source) -> Items:
    """NExT-QA, multiple choice: the official csv or the hub's parquet, columns a0 to a4; group: type.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `rows_of`.
    """
    rows, sha256 = rows_of(source, {".csv": comma})

    def parse(row: Row) -> Item:
        options = tuple(text(row, f"a{k}") for k in range(5))
        name = text(row, "video")
        return Item(
            id=f"{name}/{text(row, 'qid')}",
            question=text(row, "question"),
            target=option_index(row, "answer", 5),
            options=options,
            media=(video(source.folder, name),),
            groups={"type": text(row, "type")},
        )

    return gather(rows, parse, source, sha256)


def read_perceptiontest(source: Source) -> Items:
    """PerceptionTest, multiple choice, labelled split: the hub's parquet; groups: area, reasoning.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `dataset_rows`.
    """
    rows, sha256 = dataset_rows(source)

    def parse(row: Row) -> Item:
        options, name = texts(row, "options"), text(row, "video_name")
        return Item(
            id=f"{name}/{text(row, 'question_id')}",
            question=said(row, "question"),
            target=option_index(row, "answer_id", len(options)),
            options=options,
            media=(video(source.folder, name),),
            groups={k: v for k in ("area", "reasoning") if (v := optional(row, k))},
        )

    return gather(rows, parse, source, sha256)
