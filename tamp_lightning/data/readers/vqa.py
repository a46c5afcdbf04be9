"""Free answers about pictures: TextVQA, VizWiz, VQAv2, OK-VQA, GQA; official JSON files and the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tamp_lightning.data.readers.fields import answers, named, optional, picture, text
from tamp_lightning.data.readers.item import BadRow, Item, Items, Media, Placed, Row, Source, gather
from tamp_lightning.data.readers.tables import dataset_rows, json_content, json_rows, rows_of, sha256_of
from tamp_lightning.errors import InputError

ANNOTATIONS = "annotations"
GQA_PICTURES = "testdev_balanced_images"


def _read(source: Source, layouts: dict[str, Callable], image: Callable[[Row], Media]) -> Items:
    rows, sha256 = rows_of(source, layouts)

    def parse(row: Row) -> Item:
        return Item(
            id=text(row, "question_id"),
            question=text(row, "question"),
            target=answers(row),
            media=(image(row),),
            groups={k: v for k in ("answer_type", "question_type") if (v := optional(row, k))},
        )

    return gather(rows, parse, source, sha256)


def read_textvqa(source: Source) -> Items:
    """TextVQA: `TextVQA_0.5.1_val.json` with `<image_id>.jpg` files, or the hub.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `rows_of`.
    """

    def image(row: Row) -> Media:
        if callable(row.get("image")):
            return picture(row, "image", source)
        return named("image", source.folder / f"{text(row, 'image_id')}.jpg")

    return _read(source, {".json": _data}, image)


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


def read_vqa(source: Source) -> Items:
    """VQAv2 and OK-VQA: a folder with the official questions and annotations files and COCO's pictures, or the hub.

    Pictures are `COCO_<split>_<image id, 12 digits>.jpg`, or any file whose name ends so.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `dataset_rows`.
    """
    folder = Path(str(source.path))
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not files:
        return _read(source, {}, lambda row: picture(row, "image", source))
    held: dict[str, Path] = {p.stem[-12:]: p for p in source.folder.rglob("*.jpg")}

    def parse(row: Row) -> Item:
        number = text(row, "image_id").zfill(12)
        if number not in held:
            raise BadRow(f"picture COCO_*_{number}.jpg is not in {source.folder}")
        groups = {k: v for k in ("answer_type", "question_type") if (v := optional(row, k))}
        media = (Media("image", held[number]),)
        return Item(text(row, "question_id"), text(row, "question"), answers(row), media=media, groups=groups)

    return gather(_joined(files), parse, source, sha256_of(files))


def _joined(files: list[Path]) -> Iterator[Placed]:
    contents: dict[str, Any] = {}
    for file in files:
        content = json_content(file)
        if isinstance(content, dict):
            contents |= {key: (file, content[key]) for key in ("questions", ANNOTATIONS) if key in content}
    if len(contents) < 2:
        raise InputError(f"{files[0].parent} holds no pair of VQA questions and annotations files")
    given = {row.get("question_id"): row for row in contents[ANNOTATIONS][1] if isinstance(row, dict)}
    for place, row in json_rows(*contents["questions"]):
        if not isinstance(row, BadRow) and row.get("question_id") not in given:
            row = BadRow(f"question {row.get('question_id')!r} has no annotation")
        yield place, row if isinstance(row, BadRow) else {**given[row["question_id"]], **row}


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
        image = Media("image", cells[name]) if name in cells else named("image", folder / f"{name}.jpg")
        number = optional(row, "key") or text(row, "id")
        return Item(number, text(row, "question"), text(row, "answer"), media=(image,))

    return gather(rows, parse, source, sha256)
