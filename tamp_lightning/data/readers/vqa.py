"""Free answers about pictures: TextVQA, VizWiz, VQAv2, OK-VQA, GQA; official JSON files and the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from tamp_lightning.data.media import PICTURES
from tamp_lightning.data.readers.fields import answers, image, optional, picture, said, text
from tamp_lightning.data.readers.item import BadRow, Item, Items, Media, Placed, Row, Source, gather
from tamp_lightning.data.readers.tables import dataset_rows, json_content, json_rows, rows_of, sha256_of
from tamp_lightning.data.readers.vqa_files import ANNOTATIONS, pair_of

GQA_PICTURES = "testdev_balanced_images"


def _read(source: Source, layouts: dict[str, Callable], picture_of: Callable[[Row], Media]) -> Items:
    rows, sha256 = rows_of(source, layouts)

    def parse(row: Row) -> Item:
        return Item(
            id=text(row, "question_id"),
            question=said(row, "question"),
            target=answers(row),
            media=(picture_of(row),),
            groups={k: v for k in ("answer_type", "question_type") if (v := optional(row, k))},
        )

    return gather(rows, parse, source, sha256)


def read_textvqa(source: Source) -> Items:
    """TextVQA: `TextVQA_0.5.1_val.json` with `<image_id>.jpg` files, or the hub.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `rows_of`.
    """

    def picture_of(row: Row) -> Media:
        if callable(row.get("image")):
            return picture(row, "image", source)
        return image(source.folder, text(row, "image_id"))

    return _read(source, {".json": _data}, picture_of)


def _data(path: Path) -> Iterator[Placed]:
    content = json_content(path)
    return json_rows(path, content.get("data", content) if isinstance(content, dict) else content)


def read_vizwiz(source: Source) -> Items:
    """VizWiz: `val.json` with the pictures it names, or the hub.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `rows_of`.
    """
    # the official file has no ids: a picture has one question
    layouts = {".json": lambda path: _with_id(json_rows(path), "image")}
    return _read(source, layouts, lambda row: picture(row, "image", source))


def _with_id(rows: Iterator[Placed], key: str) -> Iterator[Placed]:
    for place, row in rows:
        yield place, row if isinstance(row, BadRow) or "question_id" in row else {**row, "question_id": row.get(key)}


def read_vqav2(source: Source) -> Items:
    """VQAv2: a folder with the official questions and annotations files and COCO's pictures, or the hub.

    Pictures are `COCO_<split>_<image id, 12 digits>`, or any file whose name ends so.

    Raises:
        BadRow, ValueError, FileNotFoundError: see `gather`, `pair_of` and `dataset_rows`.
    """
    return _read_vqa(source, "v2_")


def read_ok_vqa(source: Source) -> Items:
    """OK-VQA; see `read_vqav2`.

    Raises:
        BadRow, ValueError, FileNotFoundError: see `gather`, `pair_of` and `dataset_rows`.
    """
    return _read_vqa(source, "")


def _read_vqa(source: Source, prefix: str) -> Items:
    folder = Path(str(source.path))
    if not folder.is_dir() or not any(folder.glob("*.json")):
        return _read(source, {}, lambda row: picture(row, "image", source))
    files = pair_of(folder, prefix, source.split)
    held = {p.stem[-12:]: p for p in source.folder.rglob("*") if p.suffix.lower() in PICTURES}

    def parse(row: Row) -> Item:
        number = text(row, "image_id").zfill(12)
        if number not in held:
            raise BadRow(f"picture COCO_*_{number}.jpg is not in {source.folder}")
        groups = {k: v for k in ("answer_type", "question_type") if (v := optional(row, k))}
        media = (Media("image", held[number]),)
        return Item(text(row, "question_id"), said(row, "question"), answers(row), media=media, groups=groups)

    items = gather(_joined(files), parse, source, sha256_of(files))
    return replace(items, notes=(f"read {' and '.join(file.name for file in files)}",))


def _joined(files: list[Path]) -> Iterator[Placed]:
    """Questions with their annotations, ids being text in both; without an annotations file, questions alone."""
    given: dict[str, Row] | None = None
    for file in files[1:]:
        noted = json_content(file)[ANNOTATIONS]
        given = {str(row.get("question_id")): row for row in noted if isinstance(row, dict)}
    for place, row in json_rows(files[0], json_content(files[0])["questions"]):
        if isinstance(row, BadRow) or given is None:
            yield place, row
        elif str(row.get("question_id")) not in given:
            yield place, BadRow(f"question {row.get('question_id')!r} has no annotation")
        else:
            yield place, {**given[str(row["question_id"])], **row}


def read_gqa(source: Source) -> Items:
    """GQA: `testdev_balanced_questions.json` with a folder `images`, or the hub's two configurations.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `rows_of`.
    """
    rows, sha256 = rows_of(source, {".json": json_rows})
    local = Path(str(source.path)).exists()
    cells: dict[str, Callable] = {}
    if not local:
        pictures, _ = dataset_rows(replace(source, config=GQA_PICTURES))
        cells = {row["id"]: row["image"] for _, row in pictures if not isinstance(row, BadRow)}

    def parse(row: Row) -> Item:
        name = text(row, "imageId")
        folder = source.folder / "images" if (source.folder / "images").is_dir() else source.folder
        medium = Media("image", cells[name]) if name in cells else image(folder, name)
        number = optional(row, "key") or text(row, "id")
        return Item(number, said(row, "question"), text(row, "answer"), media=(medium,))

    return gather(rows, parse, source, sha256)
