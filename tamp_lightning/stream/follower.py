"""The stream of a process that reads and prunes along, and leaves the writing to another."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from tamp_lightning.checkpoint.writer import ShardWriter
from tamp_lightning.stream.disk import DiskStream


class _NoWriter(ShardWriter):
    """Checks what a writer checks, and writes nothing."""

    def put(self, block: int, tensors: Mapping[str, Tensor]) -> None:
        """Do nothing."""

    def finish(self) -> dict[str, str]:
        """Return an empty mapping."""
        return {}


class FollowerStream(DiskStream):
    """A DiskStream that never writes: a block it has released comes back dense."""

    writer: ClassVar[type[ShardWriter]] = _NoWriter
