"""CircularEval: a question counts only if every rotation of its options is answered right."""

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from tamp_lightning.metrics.choice import ChoiceAccuracy
from tamp_lightning.metrics.groups import group_means, prefixed, rows_by_group
from tamp_lightning.metrics.letters import Extractor


class CircularAccuracy(ChoiceAccuracy):
    """MMBench's CircularEval beside the accuracy of the unrotated questions.

    Rows with the same circle id are one question with its options rotated (MMBench: ``index % 10**6``); the
    unrotated one is the one that `base` names, else the first in dataset order. ``compute`` returns ``circular``
    (a question counts only if all its rows are right), ``vanilla`` (unrotated rows only), ``circular/<category>``,
    ``complete`` (share of questions with all rows seen; the others are left out of ``circular``), and ``accuracy``,
    ``unparsed``, ``coverage`` over rows.

    Args:
        circle_ids: one id per row.
        extract: ``(reply, options) -> option number or -1``.
        categories: one label per row; a question has the label of its unrotated row.
        base: per row, whether it is the unrotated one.
        fallback: as in `ChoiceAccuracy`.
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: if there is not one category, or one entry of `base`, per row.

    Source: lmms-eval mmbench/mmbench_evals.py.
    """

    def __init__(
        self,
        circle_ids: Sequence[Hashable],
        extract: Extractor,
        categories: Sequence[str | None] | None = None,
        fallback: int = -1,
        base: Sequence[bool] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(len(circle_ids), extract, fallback=fallback, **kwargs)
        rows_by_group(categories, self.num_samples)
        first = _base_rows(circle_ids, base or [False] * self.num_samples)
        number = {circle: position for position, circle in enumerate(first)}
        self.circle = torch.tensor([number[circle] for circle in circle_ids])
        self.base_rows = torch.tensor(list(first.values()))
        labels = None if categories is None else [categories[row] for row in first.values()]
        self.circles_of = rows_by_group(labels, len(first))

    def circle_values(self) -> Tensor:
        """1.0 for questions with all rotations right, 0.0 for others, NaN where a rotation was not seen.

        Returns:
            float64[questions] on the CPU, in the order in which they first appear; merged over processes as in
            `values`.
        """
        return self._circles(self.values())

    def _circles(self, values: Tensor) -> Tensor:
        # The worst row decides; -1 stands for "not seen" because NaN has no order.
        worst = torch.ones(len(self.base_rows), dtype=torch.float64)
        worst = worst.scatter_reduce(0, self.circle, values.nan_to_num(nan=-1.0), "amin")
        return worst.masked_fill(worst < 0, torch.nan)

    def compute(self) -> dict[str, Tensor]:
        """Return ``circular``, ``vanilla``, ``complete`` and the figures over rows as scalar tensors."""
        values = self._values()
        circles = self._circles(values)
        return self._result(
            {
                "circular": circles.nanmean().item(),
                "vanilla": values[self.base_rows].nanmean().item(),
                **prefixed("circular", group_means(circles, self.circles_of)),
                "complete": (~circles.isnan()).double().mean().item(),
                **self._accuracies(),
            }
        )


def _base_rows(circle_ids: Sequence[Hashable], base: Sequence[bool]) -> dict[Hashable, int]:
    """Circle -> its row that `base` names, else its first."""
    found: dict[Hashable, int] = {}
    for row, circle in enumerate(circle_ids):
        found.setdefault(circle, row)
    return found | {circle: row for row, (circle, own) in enumerate(zip(circle_ids, base, strict=True)) if own}
