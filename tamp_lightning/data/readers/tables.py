"""Rows of files and of hub data sets, each with the place an error message names."""

from __future__ import annotations

import codecs
import csv
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tamp_lightning.data.readers.item import BadRow, Placed, Source
from tamp_lightning.errors import InputError

# a picture in base64 stands in one field
csv.field_size_limit(sys.maxsize)


def sha256_of(files: Sequence[Path]) -> str:
    """One checksum over the contents of files, in the order given.

    Raises:
        FileNotFoundError: a file is missing.
    """
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def text_of(path: Path) -> str:
    """Content of a text file in UTF-8, without a byte order mark, line ends as they are.

    Raises:
        BadRow: it is missing or in another encoding; the message names the file.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BadRow(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x} at {error.start}"
        raise BadRow(f"{path} is not in UTF-8 ({byte}): save it in UTF-8") from None


def separated(path: Path, separator: str) -> Iterator[Placed]:
    """Rows of a file with a header; every field is text.

    Empty rows are passed over; a row with more or fewer fields is bad.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file, delimiter=separator)
        try:
            header = next((fields for fields in lines if any(map(str.strip, fields))), [])
            for number, fields in enumerate(lines, 2):
                place = f"{path.name} row {number}"
                if not any(map(str.strip, fields)):
                    continue
                if len(fields) != len(header):
                    yield place, BadRow(f"{len(fields)} fields, the header has {len(header)}")
                else:
                    yield place, dict(zip(header, fields, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {path}: {error}") from None


def json_lines(path: Path) -> Iterator[Placed]:
    """Objects of a file with one on each line, which ends at \\n alone; empty lines are passed over."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if line.strip():
                yield f"{path.name} line {number}", _object(line)


def _object(line: bytes) -> dict[str, Any] | BadRow:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        return BadRow(f"no JSON: {error}")
    return row if isinstance(row, dict) else BadRow(f"expected an object, got {type(row).__name__}")


def json_content(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        InputError: it is missing or no JSON.
    """
    try:
        return json.loads(path.read_bytes())  # in UTF-8, -16 or -32, with or without a byte order mark
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def json_rows(path: Path, content: Any = None) -> Iterator[Placed]:
    """Objects of a JSON list; of an object, its values, each with its key as `key`.

    Raises:
        InputError: the file is neither a list nor an object.
    """
    content = json_content(path) if content is None else content
    if isinstance(content, dict):
        content = [{**row, "key": key} if isinstance(row, dict) else row for key, row in content.items()]
    if not isinstance(content, list):
        raise InputError(f"{path} holds {type(content).__name__}, expected a list of objects")
    for number, row in enumerate(content, 1):
        good = isinstance(row, dict)
        yield f"{path.name} entry {number}", row if good else BadRow(f"expected an object, got {type(row).__name__}")


class Cell:
    """Bytes of a picture, video or sound in a data set, read from the memory-mapped file when called."""

    def __init__(self, column: pa.ChunkedArray, row: int, entry: int | None = None) -> None:
        self.column, self.row, self.entry = column, row, entry

    def __call__(self) -> bytes:
        """The bytes; of a cell that names a file instead, the file's."""
        value = self.column[self.row]
        held = (value if self.entry is None else value[self.entry]).as_py() or {}
        if held.get("bytes") is None and held.get("path"):
            return Path(held["path"]).read_bytes()
        return held.get("bytes") or b""


def _is_media(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _cells(column: pa.ChunkedArray) -> list[Any]:
    if _is_media(column.type):
        return [Cell(column, n) if valid else None for n, valid in enumerate(column.is_valid().to_pylist())]
    lengths = pc.list_value_length(column).to_pylist()
    return [[Cell(column, n, k) for k in range(length or 0)] for n, length in enumerate(lengths)]


def _has_media(kind: pa.DataType) -> bool:
    return _is_media(kind) or (pa.types.is_list(kind) and _is_media(kind.value_type))


def arrow_rows(table: pa.Table, name: str) -> Iterator[Placed]:
    """Rows of an Arrow table; a media column gives a `Cell` (or a list of them), None where it is empty."""
    media = [field.name for field in table.schema if _has_media(field.type)]
    cells = {column: _cells(table.column(column)) for column in media}
    for number, row in enumerate(table.drop_columns(media).to_pylist()):
        yield f"{name} row {number}", {**row, **{column: values[number] for column, values in cells.items()}}


def dataset_rows(source: Source) -> tuple[Iterator[Placed], str]:
    """Rows of a hub data set, a parquet file, or a folder of parquet files, through `datasets`; and a checksum.

    In a folder, the files below it whose path names the configuration (if any) and whose name begins with the split
    are taken; if none does, all of them.

    Raises:
        FileNotFoundError: there is no such file, or the hub does not give the data set.
    """
    import datasets

    datasets.disable_progress_bars()
    path = Path(str(source.path))
    files = [path] if path.is_file() else _parquet_files(path, source)
    try:
        if files:
            names = [str(file) for file in files]
            data = datasets.load_dataset("parquet", data_files=names, split="train")
            return arrow_rows(data.data.table, path.name), sha256_of(files)
        data = datasets.load_dataset(str(source.path), source.config, split=source.split)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        wanted = " ".join(filter(None, [str(source.path), source.config, source.split]))
        raise FileNotFoundError(
            f"cannot read {wanted}: {reason}; give a hub id or a local file or folder as data.<benchmark>.path"
        ) from None
    return arrow_rows(data.data.table, f"{source.path} {source.split}"), data._fingerprint


def _parquet_files(folder: Path, source: Source) -> list[Path]:
    if not folder.is_dir():
        return []
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no parquet file: give the folder or file of the data set itself")
    of_config = [f for f in files if source.config and source.config in f.relative_to(folder).parts[:-1]] or files
    return [f for f in of_config if source.split and f.name.startswith(source.split)] or of_config


Layout = Callable[[Path], Iterator[Placed]]


def rows_of(source: Source, layouts: dict[str, Layout]) -> tuple[Iterator[Placed], str]:
    """Rows of a source: a file whose ending is one of `layouts` (or a folder with exactly one such), else a data set.

    Raises:
        FileNotFoundError: there is no such file, or the hub does not give the data set.
        InputError: the file's ending is none of the benchmark's.
    """
    path = Path(str(source.path))
    if path.is_dir():
        found = [f for f in sorted(path.iterdir()) if f.suffix in layouts]
        if not any(path.rglob("*.parquet")):
            _check_one(path, found, layouts)
        path = found[0] if len(found) == 1 else path
    if path.suffix in layouts and path.is_file():
        return layouts[path.suffix](path), sha256_of([path])
    if path.is_file() and path.suffix != ".parquet":
        raise InputError(f"{path} is none of {', '.join([*layouts, '.parquet'])}")
    if not path.exists() and (path.suffix in (*layouts, ".parquet") or str(source.path).startswith((".", "/", "~"))):
        raise FileNotFoundError(f"{path} does not exist")
    return dataset_rows(source)


def _check_one(folder: Path, found: Sequence[Path], layouts: Mapping[str, Layout]) -> None:
    kinds = [*layouts, ".parquet"]
    if not found:
        raise FileNotFoundError(f"{folder} holds no {' or '.join(kinds)} file")
    if len(found) > 1:
        raise FileNotFoundError(f"{folder} holds {len(found)} files, {_few(found)}: give the one to read as path")


def _few(files: Sequence[Path], count: int = 3) -> str:
    return ", ".join(file.name for file in files[:count]) + (", ..." if len(files) > count else "")


def tsv(path: Path) -> Iterator[Placed]:
    """Rows of a file separated by tabs."""
    return separated(path, "\t")


def comma(path: Path) -> Iterator[Placed]:
    """Rows of a file separated by commas."""
    return separated(path, ",")
