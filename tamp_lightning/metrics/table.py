"""The state all per-sample metrics share: one integer per dataset row."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

SCALE = 1_000_000
UNPARSED = 1
SKIPPED = 2
CUT = 32  # the bits between belong to `YesNo`

# A code is ``round(score * SCALE) + mark * MARK``: a plain score (mark 0) is stored as it is.
MARK = 2 * SCALE
UNSEEN = -1
_instances = count()


class SampleTable(Metric):
    """Scores in [0, 1] by dataset position, in a state that survives any way of running an evaluation.

    The state ``code: int64[num_samples]`` holds -1 for rows not seen yet and else ``round(score * 10**6)``
    (plus a mark above it, e.g. "the reply could not be parsed"). Processes are merged by the maximum. Because
    a row is written, not added, samples repeated by a padded sampler, any order, and a process without data
    do not change the result; because it is an integer, casting the module to bfloat16 does not either.

    Writing a row again replaces its score, so a forgotten ``reset`` cannot mix in an older, better model on
    the same process; reset between evaluations all the same, since rows not seen again would stay. Where
    processes disagree about a repeated sample, the larger code wins on all of them.

    ``MetricCollection`` merges metrics whose states are equal after the first batch, which would make two
    metrics that differ only in their parser one. The second state, ``stamp``, differs between instances and
    prevents it.

    Args:
        num_samples: rows of the dataset.
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: if ``num_samples`` is not positive.
    """

    is_differentiable = False
    higher_is_better = True
    # `forward` would otherwise merge each batch by the maximum and so keep the better of two scores of a row.
    full_state_update = True
    code: Tensor
    stamp: Tensor

    def __init__(self, num_samples: int, **kwargs: Any) -> None:
        # A cached result would be cast along with the module (`module.to(torch.bfloat16)`).
        super().__init__(**{"compute_with_cache": False, **kwargs})
        if num_samples < 1:
            raise ValueError(f"Expected `num_samples` to be at least 1, but got {num_samples}.")
        self.num_samples = num_samples
        self.add_state("code", torch.full((num_samples,), UNSEEN, dtype=torch.int64), dist_reduce_fx="max")
        # Two digits in base 1000: collections compare states with a relative tolerance of 1e-5.
        self.add_state("stamp", torch.tensor(divmod(next(_instances), 1000)), dist_reduce_fx="max")

    def record(self, index: Tensor, scores: Sequence[float], marks: Sequence[int] | None = None) -> None:
        """Write the scores of one batch.

        Args:
            index: int64[B], dataset positions.
            scores: B scores in [0, 1].
            marks: B marks (bits), all 0 if not given.

        Raises:
            ValueError: if lengths differ, an index is outside the dataset or a score outside [0, 1].
        """
        index = check_index(index, len(scores), self.num_samples).to(self.code.device)
        score = torch.tensor(scores, dtype=torch.float64)
        if not bool(((score >= 0) & (score <= 1)).all()):
            raise ValueError(f"Expected scores between 0 and 1, but got {list(scores)}.")
        codes = (score * SCALE).round().long()
        if marks is not None:
            codes += MARK * torch.tensor(marks, dtype=torch.int64)
        # Out of place: `reset` under inference mode leaves a tensor that may not be changed outside of it.
        code = self.code.index_fill(0, index, UNSEEN)
        self.code = code.scatter_reduce(0, index, codes.to(code.device), "amax")

    def cut(self, index: Tensor) -> None:
        """Write replies that were cut off before they came to an answer: wrong, and not unparsed.

        Args:
            index: int64[B], dataset positions.

        Raises:
            ValueError: an index is outside the dataset.
        """
        self.record(index, [0.0] * len(index), [CUT] * len(index))
        # what torchmetrics does around `update`
        self._computed, self._update_count = None, self._update_count + 1

    def values(self) -> Tensor:
        """Score of every sample, merged over processes (then all of them must call this).

        Returns:
            float64[num_samples] on the CPU; NaN for rows not seen or left out of the score.
        """
        already = self._is_synced
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=not already, should_unsync=not already):
            return self._values()

    def _values(self) -> Tensor:
        score = (self.code.cpu() % MARK).double() / SCALE
        return score.masked_fill(~self._seen() | self._marked(SKIPPED), torch.nan)

    def _seen(self) -> Tensor:
        return self.code.cpu() != UNSEEN

    def _marked(self, mark: int) -> Tensor:
        """BoolTensor[num_samples]: rows seen that carry any bit of `mark`."""
        return self._seen() & ((self.code.cpu() // MARK) & mark).bool()

    def _rate(self, mark: int) -> float:
        """Share of the rows seen that carry `mark`; NaN if none was seen."""
        return ratio(self._marked(mark).sum().item(), self._seen().sum().item(), empty=torch.nan)

    def _coverage(self) -> float:
        return self._seen().double().mean().item()

    def _result(self, numbers: Mapping[str, float]) -> dict[str, Tensor]:
        return to_scalars(numbers, self.code.device)


def to_scalars(numbers: Mapping[str, float], device: torch.device) -> dict[str, Tensor]:
    """Scalar tensors for ``self.log_dict`` on `device`: float64, or float32 on a device without float64."""
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return {name: torch.tensor(number, dtype=dtype, device=device) for name, number in numbers.items()}


def ratio(part: float, whole: float, empty: float = 0.0) -> float:
    """``part / whole``, or `empty` when `whole` is 0."""
    return part / whole if whole else empty


def check_index(index: Tensor, batch: int, num_samples: int) -> Tensor:
    """Return `index` as int64[batch].

    Raises:
        ValueError: if it has another length or type, or a position is outside ``[0, num_samples)``.
    """
    if index.is_floating_point() or index.dtype == torch.bool or index.shape != (batch,):
        shape = tuple(index.shape)
        raise ValueError(f"Expected `index` to be {batch} integers, but got {index.dtype} of shape {shape}.")
    if batch and not (int(index.min()) >= 0 and int(index.max()) < num_samples):
        raise ValueError(f"Expected positions in [0, {num_samples}), but got {index.tolist()}.")
    return index.long()


def check_lengths(**batches: Sequence[object] | Tensor) -> None:
    """Raise ValueError unless all arguments have the same length."""
    lengths = {name: len(values) for name, values in batches.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"Expected one entry per sample, but got {lengths}.")
