"""Where the questions of the benchmarks that a recipe names are read from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data.readers.item import Source
from tamp_lightning.errors import InputError
from tamp_lightning.resources import cache_folder
from tamp_lightning.testbeds import clip_layouts, easy_vqa_layouts, skill_layouts

LAYOUTS = {layouts.NAME: layouts for layouts in (easy_vqa_layouts, skill_layouts, clip_layouts)}
"""The test beds' questions, written as files of public benchmarks."""


def sources_of(names: Iterable[str], data: Mapping[str, Any], say: Callable[[str], Any]) -> dict[str, Source]:
    """Where the data of benchmarks are.

    Args:
        names: of benchmarks.
        data: what the recipe says; other benchmarks may stand there too.
        say: takes a line on each data set that is downloaded.

    Raises:
        InputError, FileNotFoundError: see `check_data` and `source_of`.
    """
    check_data(data)
    sources = {name: source_of(name, data) for name in names}
    for name, source in sources.items():
        if (line := download_line(name, source)) is not None:
            say(line)
    return sources


def download_line(name: str, source: Source) -> str | None:
    """What is fetched for a benchmark from where, and how to do without; None where the data are local."""
    if source.path is None or Path(source.path).exists() or source.path.startswith((".", "/")):
        return None
    part = ", ".join(part for part in (source.config, source.split) if part)
    return (
        f"{name}: {source.path} ({part}) is read from the hub, and downloaded once; "
        f"data.{name}=FILE_OR_FOLDER reads it from there"
    )


def check_data(data: Mapping[str, Any]) -> None:
    """Refuse a data section for what is no benchmark; one that is not scored this time may stay.

    Raises:
        InputError: names it and the nearest.
    """
    for name in data:
        if name not in BENCHMARKS:
            near = get_close_matches(name, BENCHMARKS, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise InputError(f"data has {name!r}, expected {', '.join(BENCHMARKS)}{hint}")


def source_of(name: str, data: Mapping[str, Any]) -> Source:
    """Where the data of a benchmark are: the recipe's word over the benchmark's own.

    Raises:
        InputError: unknown key, or no place at all.
        FileNotFoundError: easy-VQA is wanted and not installed.
    """
    given = data.get(name, {})
    given = {"path": given} if isinstance(given, str) else given
    known = [f.name for f in fields(Source)]
    if not isinstance(given, dict) or not given.keys() <= set(known):
        raise InputError(f"data.{name} is {given!r}, expected a path or a section with {', '.join(known)}")
    default = BENCHMARKS[name].source
    if given.get("path") in LAYOUTS:
        layouts = LAYOUTS[given["path"]]
        default = layouts.write(name, cache_folder() / f"{layouts.NAME.replace('-', '_')}_layouts")
        given = {key: value for key, value in given.items() if key != "path"}
    source = replace(default, **given)
    if source.path is None:
        raise InputError(f"{name} has no data on the hub that we know of: give data.{name}.path and data.{name}.media")
    return source
