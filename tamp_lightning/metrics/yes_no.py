"""Yes/no questions (POPE): the parsers of its two published protocols, and the metric."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.metrics.table import UNPARSED, SampleTable, check_lengths, ratio

_PRED_YES = 4
_PRED_NO = 8
_TARGET_YES = 16


def official_yes_no(reply: str) -> tuple[str, bool]:
    """POPE's own rule: "no" if the first sentence has the word No, no or not (in that spelling), else "yes".

    Returns:
        The answer, and whether the reply says it: a first sentence with neither a negative word nor a "yes"
        is still a "yes" to this rule, but only for want of a "no".

    Source: RUCAIBox/POPE evaluate.py, LLaVA llava/eval/eval_pope.py.
    """
    words = reply.partition(".")[0].replace(",", "").split(" ")
    if any(word in ("No", "no", "not") for word in words):
        return "no", True
    return "yes", any(word.lower() == "yes" for word in words)


def strict_yes_no(reply: str) -> tuple[str, bool]:
    """lmms-eval's rule for POPE: the whole reply in any case is "yes" or "no"; anything else is neither.

    Returns:
        The answer or "", and whether there is one.

    Source: lmms-eval pope/utils.py.
    """
    answer = reply.strip().lower()
    return (answer, True) if answer in ("yes", "no") else ("", False)


_PARSERS = {"official": official_yes_no, "lmms": strict_yes_no}


class YesNo(SampleTable):
    """Accuracy, precision, recall and F1 of yes/no replies, "yes" being the positive class.

    ``compute`` returns, as fractions of the rows seen, ``accuracy``, ``precision``, ``recall``, ``f1``,
    ``pred_yes_ratio``, ``target_yes_ratio``, ``unparsed`` and ``coverage``. Precision, recall and F1 are 0
    where their denominator is 0; everything but ``coverage`` is NaN if nothing was seen.

    Args:
        num_samples: rows of the dataset.
        protocol: ``"official"`` reads every reply as yes or no (one with neither word is a yes, counted in
            ``unparsed``). ``"lmms"`` takes bare words only; other replies are wrong for ``accuracy`` but
            neither positive nor a missed positive, so a babbling model keeps a high precision, recall and F1.
            lmms-eval's ``yes_ratio`` is our ``target_yes_ratio``, the official one ``pred_yes_ratio``.
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: for an unknown protocol.
    """

    def __init__(self, num_samples: int, protocol: Literal["official", "lmms"] = "official", **kwargs: Any) -> None:
        super().__init__(num_samples, **kwargs)
        if protocol not in _PARSERS:
            raise ValueError(f"Expected `protocol` to be one of {sorted(_PARSERS)}, but got {protocol!r}.")
        self.parse = _PARSERS[protocol]

    def update(self, index: Tensor, preds: Sequence[str], targets: Sequence[str]) -> None:
        """Score one batch of replies.

        Args:
            index: int64[B], dataset positions.
            preds: B replies.
            targets: B labels, "yes" or "no" in any case.

        Raises:
            ValueError: if lengths differ, an index is outside the dataset or a label is neither yes nor no.
        """
        check_lengths(index=index, preds=preds, targets=targets)
        scores, marks = [], []
        for reply, target in zip(preds, yes_no_labels(targets), strict=True):
            answer, said = self.parse(reply)
            scores.append(float(answer == target))
            mark = 0 if said else UNPARSED
            mark |= {"yes": _PRED_YES, "no": _PRED_NO}.get(answer, 0)
            marks.append(mark | (_TARGET_YES if target == "yes" else 0))
        self.record(index, scores, marks)

    def compute(self) -> dict[str, Tensor]:
        """Return the eight figures named above as scalar tensors."""
        seen, positive = self._seen(), self._marked(_TARGET_YES)
        true_positive = (self._marked(_PRED_YES) & positive).sum().item()
        false_positive = (self._marked(_PRED_YES) & ~positive).sum().item()
        false_negative = (self._marked(_PRED_NO) & positive).sum().item()
        empty = 0.0 if seen.any() else float("nan")
        precision = ratio(true_positive, true_positive + false_positive, empty)
        recall = ratio(true_positive, true_positive + false_negative, empty)
        return self._result(
            {
                "accuracy": self._values().nanmean().item(),
                "precision": precision,
                "recall": recall,
                "f1": ratio(2 * precision * recall, precision + recall),
                "pred_yes_ratio": self._rate(_PRED_YES),
                "target_yes_ratio": self._rate(_TARGET_YES),
                "unparsed": self._rate(UNPARSED),
                "coverage": self._coverage(),
            }
        )


def yes_no_labels(targets: Sequence[str]) -> list[str]:
    """Labels as "yes" or "no".

    Raises:
        ValueError: for a label that is neither, apart from case, outer spaces and periods.
    """
    labels = [target.lower().strip().replace(".", "") for target in targets]
    if not set(labels) <= {"yes", "no"}:
        raise InputError(f"Expected every target to be yes or no, but got {sorted(set(targets))}.")
    return labels
