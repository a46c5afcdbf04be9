"""MME: pairs of yes/no questions about one picture, in 14 categories."""

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.metrics.groups import group_means, prefixed, rows_by_group
from tamp_lightning.metrics.table import UNPARSED, SampleTable, check_lengths
from tamp_lightning.metrics.yes_no import yes_no_labels

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


def mme_yes_no(reply: str) -> str:
    """MME's parser: "yes", "no" or "other".

    A lone "y" or "n" counts, and so does "yes", then "no", within the first four characters: "know", "none"
    and "not sure" are a no, "I think yes" is other. Case, outer spaces and all periods are dropped first.

    Source: lmms-eval mme/utils.py, parse_pred_ans.
    """
    text = reply.lower().strip().replace(".", "")
    if len(text) == 1:
        return {"y": "yes", "n": "no"}.get(text, "other")
    return next((answer for answer in ("yes", "no") if answer in text[:4]), "other")


class MMEScore(SampleTable):
    """MME's perception (at most 2000) and cognition (at most 800) scores.

    A category is the mean over its pairs of 100 * accuracy + 100 * [both right], so 0 to 200; perception is
    the sum of 10 categories, cognition of 4. A pair with a row not seen is left out, and a category without a
    pair adds nothing: with ``coverage`` below 1 the sums are not MME's. ``compute`` returns ``perception``,
    ``cognition``, ``category/<name>``, ``unparsed`` (share of replies that are neither yes nor no: wrong) and
    ``coverage``. ``values`` is the plain correctness of each row.

    Args:
        pair_ids: one id per row; the two rows of a pair share id and category.
        categories: one of MME's categories per row.
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: for an unknown category, lists of different length, or a pair that is not two rows.

    Source: lmms-eval mme/utils.py.
    """

    def __init__(self, pair_ids: Sequence[Hashable], categories: Sequence[str], **kwargs: Any) -> None:
        super().__init__(len(pair_ids), **kwargs)
        check_lengths(pair_ids=pair_ids, categories=categories)
        unknown = sorted(set(categories) - {*PERCEPTION, *COGNITION})
        if unknown:
            raise InputError(f"Expected categories of MME {PERCEPTION + COGNITION}, but got {unknown}.")
        pairs: dict[tuple[str, Hashable], list[int]] = {}
        for row, key in enumerate(zip(categories, pair_ids, strict=True)):
            pairs.setdefault(key, []).append(row)
        broken = [key for key, rows in pairs.items() if len(rows) != 2]
        if broken:
            raise InputError(f"Expected two rows for every pair, but {len(broken)} differ, first {broken[0]}.")
        self.pairs = torch.tensor(list(pairs.values()))
        self.pairs_of = rows_by_group([category for category, _ in pairs], len(pairs))

    def update(self, index: Tensor, preds: Sequence[str], targets: Sequence[str]) -> None:
        """Score one batch of replies.

        Args:
            index: int64[B], dataset positions.
            preds: B replies.
            targets: B labels, "Yes" or "No" in any case.

        Raises:
            ValueError: if lengths differ, an index is outside the dataset or a label is neither yes nor no.
        """
        check_lengths(index=index, preds=preds, targets=targets)
        answers = [mme_yes_no(reply) for reply in preds]
        scores = [float(a == target) for a, target in zip(answers, yes_no_labels(targets), strict=True)]
        self.record(index, scores, [UNPARSED * (answer == "other") for answer in answers])

    def compute(self) -> dict[str, Tensor]:
        """Return ``perception``, ``cognition``, ``category/<name>``, ``unparsed``, ``coverage``."""
        # NaN in either row makes the pair NaN, which the means leave out.
        accuracy = self._values()[self.pairs].mean(1)
        points = torch.where(accuracy == 1, 200.0, 100 * accuracy)
        means = group_means(points, self.pairs_of)
        return self._result(
            {
                "perception": sum(means.get(name, 0.0) for name in PERCEPTION),
                "cognition": sum(means.get(name, 0.0) for name in COGNITION),
                **prefixed("category", means),
                "unparsed": self._rate(UNPARSED),
                "coverage": self._coverage(),
            }
        )
