"""Multiple-choice replies: accuracy of the option that a reply names."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from tamp_lightning.metrics.groups import Groups, group_means, prefixed, rows_by_group
from tamp_lightning.metrics.letters import Extractor
from tamp_lightning.metrics.table import SKIPPED, UNPARSED, SampleTable, check_lengths

# stands for an option that is not there, whose text no reply can hold
_NO_OPTION = "\uffff"


class ChoiceAccuracy(SampleTable):
    """Share of replies that name the right option.

    An option of empty text is a letter without an option (a question whose options begin at B): it cannot be named.
    A reply from which no option of the question can be extracted is *unparsed*: wrong, never a random guess
    as in lmms-eval, and counted. ``compute`` returns ``accuracy``, ``accuracy/<group>``, ``unparsed`` (a
    share of the rows seen) and ``coverage``.

    Args:
        num_samples: rows of the dataset.
        extract: ``(reply, options) -> option number or -1``, see `tamp_lightning.metrics.extractor`.
        groups: one label per row, or several such lists by name; a row labelled ``None`` is in no group.
        fallback: option that an unparsed reply is scored as. -1 is wrong. VideoLLaMA2's own scripts use 2
            (option C), so that a broken model scores the share of C, not 0; such replies are still counted as
            unparsed.
        unparsed: ``"wrong"``, or ``"skip"``, which takes such replies out of every mean as VLMEvalKit and the
            official tool of VideoMME do.
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: for an unknown option or labels that do not match the dataset.
    """

    def __init__(
        self,
        num_samples: int,
        extract: Extractor,
        groups: Groups | None = None,
        fallback: int = -1,
        unparsed: Literal["wrong", "skip"] = "wrong",
        **kwargs: Any,
    ) -> None:
        super().__init__(num_samples, **kwargs)
        if unparsed not in ("wrong", "skip"):
            raise ValueError(f"Expected `unparsed` to be 'wrong' or 'skip', but got {unparsed!r}.")
        self.extract = extract
        self.rows = rows_by_group(groups, num_samples)
        self.fallback = fallback
        self.unparsed_mark = UNPARSED | (SKIPPED if unparsed == "skip" else 0)

    def update(self, index: Tensor, preds: Sequence[str], targets: Tensor, options: Sequence[Sequence[str]]) -> None:
        """Score one batch of replies.

        Args:
            index: int64[B], dataset positions.
            preds: B replies.
            targets: int64[B], right option numbers.
            options: B lists of option texts.

        Raises:
            ValueError: if lengths differ or an index is outside the dataset.
        """
        check_lengths(index=index, preds=preds, targets=targets, options=options)
        scores, marks = [], []
        for reply, target, texts in zip(preds, targets.tolist(), options, strict=True):
            choice = self.extract(reply, [text or _NO_OPTION for text in texts])
            parsed = 0 <= choice < len(texts) and texts[choice] != ""
            scores.append(float((choice if parsed else self.fallback) == target))
            marks.append(0 if parsed else self.unparsed_mark)
        self.record(index, scores, marks)

    def compute(self) -> dict[str, Tensor]:
        """Return ``accuracy``, ``accuracy/<group>``, ``unparsed`` and ``coverage`` as scalar tensors."""
        return self._result(self._accuracies())

    def _accuracies(self) -> dict[str, float]:
        values = self._values()
        return {
            "accuracy": values.nanmean().item(),
            **prefixed("accuracy", group_means(values, self.rows)),
            "unparsed": self._rate(UNPARSED),
            "coverage": self._coverage(),
        }
