"""Free-text answers: the mean of any scorer over a dataset."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from tamp_lightning.metrics.groups import Groups, group_means, prefixed, rows_by_group
from tamp_lightning.metrics.scorers import Scorer
from tamp_lightning.metrics.table import SKIPPED, SampleTable, check_lengths, ratio


class AnswerScore(SampleTable):
    """Mean score of free-text replies against their references.

    ``compute`` returns ``score`` (NaN if nothing was seen), ``score/<group>`` for every group with a scored
    row (``score/<name>/<group>`` with several groupings), and ``coverage``, the share of the dataset seen.

    Args:
        num_samples: rows of the dataset.
        scorer: ``(reply, target or targets) -> score in [0, 1]``, see `tamp_lightning.metrics.scorer`.
        groups: one label per row, or several such lists by name; a row labelled ``None`` is in no group.
        average: ``"micro"`` is the mean over rows, ``"macro"`` the plain mean over the groups seen.
        empty: what a reply of nothing but white space is: ``"wrong"`` whatever the scorer would say (VQA's
            normaliser makes nothing of "the" and ".", which then equal an empty reply), or ``"skip"``, which takes
            it out of every mean as lmms-eval does for MVBench (then a model that says nothing loses nothing: report
            it beside ``coverage``).
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: for an unknown option, labels that do not match the dataset, or ``"macro"`` without
            exactly one grouping.
    """

    def __init__(
        self,
        num_samples: int,
        scorer: Scorer,
        groups: Groups | None = None,
        average: Literal["micro", "macro"] = "micro",
        empty: Literal["wrong", "skip"] = "wrong",
        **kwargs: Any,
    ) -> None:
        super().__init__(num_samples, **kwargs)
        if average not in ("micro", "macro"):
            raise ValueError(f"Expected `average` to be 'micro' or 'macro', but got {average!r}.")
        if empty not in ("wrong", "skip"):
            raise ValueError(f"Expected `empty` to be 'wrong' or 'skip', but got {empty!r}.")
        one_grouping = len(groups) == 1 if isinstance(groups, Mapping) else groups is not None
        if average == "macro" and not one_grouping:
            raise ValueError("Expected exactly one grouping with average='macro'.")
        self.scorer = scorer
        self.rows = rows_by_group(groups, num_samples)
        self.average = average
        self.empty = empty

    def update(self, index: Tensor, preds: Sequence[str], targets: Sequence[str | Sequence[str]]) -> None:
        """Score one batch of replies.

        Args:
            index: int64[B], dataset positions.
            preds: B replies.
            targets: B references, or lists of references.

        Raises:
            ValueError: if lengths differ or an index is outside the dataset.
        """
        check_lengths(index=index, preds=preds, targets=targets)
        blank = [not reply.strip() for reply in preds]
        scores = [
            0.0 if nothing else self.scorer(reply, target)
            for reply, target, nothing in zip(preds, targets, blank, strict=True)
        ]
        self.record(index, scores, [SKIPPED * (nothing and self.empty == "skip") for nothing in blank])

    def compute(self) -> dict[str, Tensor]:
        """Return ``score``, ``score/<group>`` and ``coverage`` as scalar tensors."""
        values = self._values()
        means = group_means(values, self.rows)
        score = values.nanmean().item()
        if self.average == "macro":
            score = ratio(sum(means.values()), len(means), empty=float("nan"))
        return self._result({"score": score, **prefixed("score", means), "coverage": self._coverage()})
