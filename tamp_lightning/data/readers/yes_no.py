"""Yes/no questions about pictures: POPE and MME."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from tamp_lightning.data.media import PICTURES
from tamp_lightning.data.readers.fields import optional, picture, text, yes_no
from tamp_lightning.data.readers.item import BadRow, Item, Items, Placed, Row, Source, gather
from tamp_lightning.data.readers.tables import dataset_rows, json_lines, rows_of, sha256_of, text_of
from tamp_lightning.errors import InputError

POPE_KINDS = ("random", "popular", "adversarial")
MME_QUESTION_TAIL = " Please answer yes or no."


def read_pope(source: Source) -> Items:
    """POPE: the official files of JSON lines (one, or a folder of them), or the hub; group: category.

    The official folder also holds files of objects; those of questions have one of POPE's kinds in their name, or
    begin with a question.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `rows_of`.
    """
    folder = Path(str(source.path))
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [f for f in inside if f.suffix in (".json", ".jsonl") and _asks(f)]
    if files:
        rows: Iterator[Placed] = chain.from_iterable(_kind_of_file(file) for file in files)
        sha256 = sha256_of(files)
    else:
        rows, sha256 = rows_of(source, {".json": _kind_of_file, ".jsonl": _kind_of_file})

    def parse(row: Row) -> Item:
        kind = optional(row, "category") or "all"
        hub = "question" in row
        return Item(
            id=f"{kind}/{text(row, 'question_id')}",
            question=text(row, "question" if hub else "text"),
            target=yes_no(row, "answer" if hub else "label"),
            media=(picture(row, "image", source),),
            groups={"category": kind},
        )

    return gather(rows, parse, source, sha256)


def _asks(path: Path) -> bool:
    """Whether a file is one of questions."""
    if any(kind in path.stem for kind in POPE_KINDS):
        return True
    _, first = next(json_lines(path), ("", {}))
    return not isinstance(first, BadRow) and "question_id" in first


def _kind_of_file(path: Path) -> Iterator[Placed]:
    kind = next((kind for kind in POPE_KINDS if kind in path.stem), path.stem)
    for place, row in json_lines(path):
        yield place, row if isinstance(row, BadRow) else {**row, "category": kind}


def read_mme(source: Source) -> Items:
    """MME: the official folder (category, pictures beside files of questions), or the hub; pairs share a circle.

    Raises:
        BadRow, InputError, FileNotFoundError: see `gather` and `dataset_rows`.
    """
    folder = Path(str(source.path))
    files = [f for f in sorted(folder.rglob("*.txt")) if f.parent != folder] if folder.is_dir() else []
    rows, sha256 = (_mme_files(folder, files), sha256_of(files)) if files else dataset_rows(source)
    asked: dict[str, int] = {}

    def parse(row: Row) -> Item:
        category, pair = text(row, "category"), text(row, "question_id")
        target, image = yes_no(row, "answer"), picture(row, "image", source)
        circle = f"{category}/{pair}"
        asked[circle] = asked.get(circle, 0) + 1
        return Item(
            id=f"{circle}/{asked[circle]}",
            question=text(row, "question").removesuffix(MME_QUESTION_TAIL),
            target=target,
            media=(image,),
            groups={"category": category},
            circle=circle,
        )

    items = gather(rows, parse, source, sha256)
    return _whole_pairs(items, source)


def _whole_pairs(items: Items, source: Source) -> Items:
    """The items, without pairs that lost a row.

    Raises:
        BadRow: there is one, and the source does not say `skip_bad`.
    """
    count: dict[str, int] = {}
    for item in items.items:
        count[item.circle] = count.get(item.circle, 0) + 1
    broken = [circle for circle, n in count.items() if n != 2]
    if broken and not source.skip_bad:
        raise BadRow(f"{source.path}: {broken[0]} has {count[broken[0]]} questions, every picture of MME has two")
    kept = items.without({circle: f"half of the pair {circle} is bad" for circle in broken})
    if not len(kept):
        raise InputError(f"{source.path} has no whole pair of questions")
    return kept


def _mme_files(folder: Path, files: list[Path]) -> Iterator[Placed]:
    """Lines "question<tab>answer" of the files; pictures lie beside them, or in `images` beside their folder."""
    held: dict[Path, dict[str, Path]] = {}
    for file in files:
        category = file.relative_to(folder).parts[0]
        places = (file.parent, file.parent.parent / "images")
        for place in places:
            held.setdefault(place, _pictures_in(place))
        found = next((held[place][file.stem] for place in places if file.stem in held[place]), None)
        name = str(file.relative_to(folder))
        try:
            lines = text_of(file).split("\n")
        except BadRow as error:
            yield name, error
            continue
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{name} line {number}", _mme_row(line.removesuffix("\r"), category, file.stem, found, places)


def _pictures_in(folder: Path) -> dict[str, Path]:
    """Pictures of a folder by their names without endings, which may hold any signs."""
    files = sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []
    return {file.stem: file for file in files if file.suffix.lower() in PICTURES}


def _mme_row(line: str, category: str, stem: str, found: Path | None, places: tuple[Path, ...]) -> Row | BadRow:
    question, tab, answer = line.partition("\t")
    if not tab:
        return BadRow(f"{line!r} has no tab between question and answer")
    if found is None:
        return BadRow(f"no picture {stem}.* in {' or '.join(map(str, places))}")
    row = {"question_id": found.name, "question": question, "answer": answer, "category": category}
    return {**row, "image": str(found.absolute())}
