"""The stream of a process that reads and prunes along, and leaves the writing to another."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from tamp_lightning.checkpoint.writer import ShardWriter
from tamp_lightning.stream.disk import DiskStream


class _NoWriter(ShardWriter):
    """Checks what a writer checks, and writes nothing; the folder may lie on another machine."""

    def _check_room(self) -> None:
        """Need none."""

    def put(self, block: int, tensors: Mapping[str, Tensor]) -> None:
        """Do nothing."""

    def finish(self) -> dict[str, str]:
        """Return an empty mapping."""
        return {}


class FollowerStream(DiskStream):
    """A DiskStream that never writes, nor looks at the folder: a block it has released comes back dense."""

    writer: ClassVar[type[ShardWriter]] = _NoWriter

    def __init__(self, source: Path, out: Path, **options: Any) -> None:
        super().__init__(source, out, **{**options, "resumes": True})

    def load_towers(self, towers: Sequence[str]) -> None:
        """Do nothing: the first process sends them."""
