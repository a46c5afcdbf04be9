"""Floating-point sums whose bits do not depend on how many processes add them up."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

ARITY = 4
"""Neighbours that are added up before their sum is added to anything else."""
NODES = tuple(ARITY**level for level in range(8))
"""Numbers of leaves of a whole node."""


@dataclass
class OrderedSum:
    """Sum over leaves (`distributed.partition`) in a tree of which leaves are the lowest level and `ARITY` the width.

    The addends of a node are added from left to right. A process that has some leaves adds what it can and keeps the
    rest apart; whoever gets the parts of all processes, in the order of leaves, ends with the bits of one process.
    At most log(leaves) / log(ARITY) + 1 tensors are held at a time by a process that has all leaves.
    """

    parts: list[tuple[int, int, Tensor]] = field(default_factory=list)
    """First leaf, the leaf after the last, and their sum; neighbours in order."""

    def add(self, leaf: int, value: Tensor) -> None:
        """Add to a leaf, which is the last one or the one after it; `value` is taken over."""
        if self.parts and self.parts[-1][:2] == (leaf, leaf + 1):
            self.parts[-1][2].add_(value)
        else:
            self.close()
            self.parts.append((leaf, leaf + 1, value))

    def close(self) -> None:
        """Nothing more is added to the last leaf."""
        while len(self.parts) > 1 and _may_join(self.parts[-2], self.parts[-1]):
            self._join()

    def append(self, first: int, end: int, value: Tensor) -> None:
        """Take over another process's part."""
        self.close()
        self.parts.append((first, end, value))
        self.close()

    def total(self) -> Tensor:
        """The sum over all leaves, once every one is there; nothing can be added any more."""
        self.close()
        while len(self.parts) > 1:
            first = self.parts[:2]
            self.parts[:2] = [(first[0][0], first[1][1], first[0][2].add_(first[1][2]))]
        return self.parts[0][2]

    def _join(self) -> None:
        (first, _, left), (_, end, right) = self.parts[-2:]
        self.parts[-2:] = [(first, end, left.add_(right))]


def _may_join(left: tuple[int, int, Tensor], right: tuple[int, int, Tensor]) -> bool:
    """Whether `left` holds the first addends of a node and `right` is the next."""
    width = right[1] - right[0]
    begins = left[0] % (ARITY * width) == 0 and (left[1] - left[0]) % width == 0
    return width in NODES and begins and right[1] - left[0] <= ARITY * width
