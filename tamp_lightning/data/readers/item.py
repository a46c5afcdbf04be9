"""What every reader gives: one item per question, its media still unread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tamp_lightning.errors import InputError

Kind = Literal["image", "video", "audio"]


class BadRow(InputError):
    """A row that is not what its format says."""


@dataclass(frozen=True)
class Source:
    """Where the data of a benchmark lie."""

    path: str | None = None
    """Hub id, local file, or local folder; default: the benchmark's own on the hub."""
    config: str | None = None
    """Configuration on the hub."""
    split: str | None = None
    """Split on the hub, or beginning of the names of the parquet files in a folder."""
    media: str | None = None
    """Folder of pictures, videos or sounds; default: the folder of the file."""
    skip_bad: bool = False
    """Leave bad rows and unreadable media out, and count them; else the first one is an error. A question in several
    rows (rotations, pairs) leaves as a whole."""
    limit: int | None = None
    """Only the first so many questions (all rotations of each); default: all."""

    @property
    def folder(self) -> Path:
        """Folder that media names are relative to."""
        if self.media:
            return Path(self.media)
        path = Path(self.path or ".")
        return path if path.is_dir() else path.parent


@dataclass(frozen=True)
class Media:
    """A picture, video or sound, read when it is needed."""

    kind: Kind
    content: Path | Callable[[], bytes]
    start: float | None = None
    """Seconds into a video; default: its start."""
    end: float | None = None
    """Seconds into a video; default: its end."""

    @property
    def label(self) -> str:
        """What tells it from others: path, size and time of change of a file (bytes are in the source's own hash)."""
        if not isinstance(self.content, Path):
            return self.kind
        stat = self.content.stat()
        return f"{self.kind} {self.content.name} {stat.st_size} {stat.st_mtime_ns} {self.start} {self.end}"


@dataclass(frozen=True)
class Item:
    """One question."""

    id: str
    question: str
    target: int | str | tuple[str, ...] | None
    """Number of the right option, the right answer, or the answers people gave; None in a split without answers."""
    options: tuple[str, ...] = ()
    """From letter A on; an empty text is a letter without an option."""
    media: tuple[Media, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    """What it is grouped by, such as category or duration."""
    hint: str = ""
    """Text before the question."""
    subtitles: Path | None = None
    """An .srt file, shown with the question where the benchmark says so."""
    circle: str = ""
    """Shared by questions that only count together (rotations, pairs); default: the id."""


@dataclass(frozen=True)
class Bad:
    """A row left out."""

    place: str
    reason: str


@dataclass(frozen=True)
class Items:
    """The questions of one benchmark, in the order of their source."""

    items: list[Item]
    places: list[str]
    """File and row of each."""
    bad: list[Bad]
    """Rows left out because `skip_bad` allows it."""
    sha256: str
    """Of the source's files, or the data set's own fingerprint."""
    notes: tuple[str, ...] = ()
    """What a reader of the scores should know of the data, one line each."""

    @property
    def scored(self) -> bool:
        """Whether the answers are known; the test splits of some benchmarks are scored by a server."""
        return any(item.target is not None for item in self.items)

    def without(self, circles: Mapping[str, str]) -> Items:
        """The same without whole questions (rotations, pairs), which are listed as bad with the reason given."""
        pairs = [*zip(self.items, self.places, strict=True)]
        kept = [(item, place) for item, place in pairs if item.circle not in circles]
        gone = [Bad(place, circles[item.circle]) for item, place in pairs if item.circle in circles]
        return replace(self, items=[i for i, _ in kept], places=[p for _, p in kept], bad=[*self.bad, *gone])

    def __len__(self) -> int:
        return len(self.items)


Row = Mapping[str, Any]
Placed = tuple[str, Row | BadRow]


def gather(rows: Iterable[Placed], parse: Callable[[Row], Item], source: Source, sha256: str) -> Items:
    """Items of all good rows, ids checked to be different. Either all rows have an answer, or none has.

    Raises:
        BadRow: a row is bad and the source does not say `skip_bad`; the message names file and row.
        InputError: no row is left.
    """
    items: list[Item] = []
    places: dict[str, str] = {}
    bad: list[Bad] = []
    for place, row in rows:
        try:
            if isinstance(row, BadRow):
                raise row
            item = parse(row)
            if item.id in places:
                raise BadRow(f"id {item.id!r} was used at {places[item.id]} already")
        except BadRow as error:
            if not source.skip_bad:
                raise BadRow(f"{place}: {error} (skip_bad: true leaves such rows out and counts them)") from None
            bad.append(Bad(place, str(error)))
            continue
        items.append(item)
        places[item.id] = place
    unanswered = [item for item in items if item.target is None]
    if 0 < len(unanswered) < len(items):
        reason = "no answer, which other rows have"
        if not source.skip_bad:
            raise BadRow(f"{places[unanswered[0].id]}: {reason} (skip_bad: true leaves such rows out and counts them)")
        bad += [Bad(places[item.id], reason) for item in unanswered]
        items = [item for item in items if item.target is not None]
    if not items:
        raise InputError(f"{source.path} has no usable row ({len(bad)} bad{': ' + bad[0].reason if bad else ''})")
    items = _first(items, source.limit)
    return Items(items, [places[item.id] for item in items], bad, sha256)


def _first(items: list[Item], limit: int | None) -> list[Item]:
    if limit is None:
        return items
    if limit < 1:
        raise InputError(f"limit is {limit}; it has to be at least 1")
    wanted = set(list(dict.fromkeys(item.circle or item.id for item in items))[:limit])
    return [item for item in items if (item.circle or item.id) in wanted]
