"""Which calibration batches a process walks with, and in which order sums over batches are added up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

LEAVES = 16
"""Parts that the batches are cut into, whatever the number of processes; no more processes than parts."""


@dataclass(frozen=True)
class BatchPartition:
    """The batches of one process out of several.

    Batches are cut into at most `LEAVES` runs of neighbours, the leaves; a process takes neighbouring leaves. Batches
    themselves are never cut, so that paddings and shapes are those of one process, and leaves do not depend on the
    number of processes, so that sums by leaf do not either.
    """

    batches: int
    """Number of batches of all processes."""
    rank: int = 0
    """Number of this process."""
    processes: int = 1
    """Number of processes; at most `leaves`."""

    @property
    def leaves(self) -> int:
        """Number of leaves; each has at least one batch."""
        return min(LEAVES, self.batches)

    def leaf(self, batch: int) -> int:
        """Leaf of a batch."""
        return batch * self.leaves // self.batches

    @property
    def is_first(self) -> bool:
        """Whether this process solves and writes."""
        return self.rank == 0

    @cached_property
    def own(self) -> range:
        """Numbers of this process's batches."""
        return self.of(self.rank)

    @cached_property
    def steps(self) -> int:
        """Most batches that a process has: all make as many steps, for Lightning keeps them in step."""
        return max(len(self.of(rank)) for rank in range(self.processes))

    def of(self, rank: int) -> range:
        """Numbers of a process's batches."""
        own = [b for b in range(self.batches) if self.leaf(b) * self.processes // self.leaves == rank]
        return range(own[0], own[-1] + 1) if own else range(0)
