"""Multiple choice by likelihood: no generation, no parsing."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.metrics.table import SCALE, SampleTable, check_lengths

# Margins are clamped to this many nats so that an impossible option (infinite NLL) fits the integer state.
_MARGIN_LIMIT = 1e6
_NO_MARGIN = torch.iinfo(torch.int64).min
Gold = int | str | Sequence[int] | Sequence[str]


class LikelihoodChoice(SampleTable):
    """Accuracy of the option with the lowest negative log-likelihood (NLL); on a tie the first option wins.

    ``compute`` returns ``accuracy``, ``margin`` and ``coverage``. The margin of a sample is the normalised
    NLL, in nats, of the best wrong option minus that of the best right one: positive when the answer is right.

    Args:
        num_samples: rows of the dataset.
        normalize: what the NLL of an option is divided by: ``"sum"`` nothing, ``"token"`` its number of
            tokens, ``"char"`` its number of characters (favours long options). lmms-eval's ``acc`` is
            ``"token"``; its ``acc_norm`` divides that token mean by the characters once more: pass token
            means with ``"char"``.
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: for an unknown `normalize`.

    Source: lmms-eval api/task.py, multiple_choice.
    """

    margin: Tensor

    def __init__(self, num_samples: int, normalize: Literal["token", "sum", "char"] = "token", **kwargs: Any) -> None:
        super().__init__(num_samples, **kwargs)
        if normalize not in ("token", "sum", "char"):
            raise ValueError(f"Expected `normalize` to be 'token', 'sum' or 'char', but got {normalize!r}.")
        self.normalize = normalize
        unseen = torch.full((num_samples,), _NO_MARGIN, dtype=torch.int64)
        self.add_state("margin", unseen, dist_reduce_fx="max")

    def update(
        self,
        index: Tensor,
        nll: Tensor,
        lengths: Tensor,
        targets: Tensor | Sequence[Gold],
        options: Sequence[Sequence[str]] | None = None,
    ) -> None:
        """Score one batch of questions.

        Args:
            index: int64[B], dataset positions.
            nll: [B, C], NLL in nats summed over each option's tokens; padded with inf.
            lengths: [B, C], tokens or characters of each option, as `normalize` says; unused with ``"sum"``.
            targets: int64[B], right option numbers; or B entries, each a number, the text of an option, or several
                of these, any of which is right.
            options: B lists of option texts, needed where a target is a text.

        Raises:
            ValueError: if shapes differ, an index is outside the dataset, a NLL is NaN, a target is not an
                option of its question, or a question has fewer than two options of finite NLL.
        """
        check_lengths(index=index, nll=nll, lengths=lengths, targets=targets)
        nll = nll.double().cpu()
        gold = _gold(targets, options, nll.shape[1])
        self._check(nll)
        costs = nll if self.normalize == "sum" else nll / lengths.double().cpu().clamp(min=1)
        right, wrong = (costs.masked_fill(mask, torch.inf).amin(1) for mask in (~gold, gold))
        margin = (wrong - right).nan_to_num(nan=0.0).clamp(-_MARGIN_LIMIT, _MARGIN_LIMIT)
        self.record(index, gold.gather(1, costs.argmin(1, keepdim=True))[:, 0].double().tolist())
        where, device = index.long(), self.margin.device
        fixed = (margin * SCALE).round().long()
        self.margin = self.margin.index_copy(0, where.to(device), fixed.to(device))

    def _check(self, nll: Tensor) -> None:
        if nll.isnan().any():
            raise ValueError("Expected NLLs that are numbers, but got NaN: the model's logits are not finite.")
        if bool((nll.isfinite().sum(1) < 2).any()):
            raise InputError("Expected at least two options of finite NLL in every question.")

    def margins(self) -> Tensor:
        """Margin of every sample in nats: float64[num_samples] on the CPU, NaN for rows not seen."""
        already = self._is_synced
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=not already, should_unsync=not already):
            return self._margins()

    def _margins(self) -> Tensor:
        return (self.margin.cpu().double() / SCALE).masked_fill(~self._seen(), torch.nan)

    def compute(self) -> dict[str, Tensor]:
        """Return ``accuracy``, ``margin`` (mean) and ``coverage`` as scalar tensors."""
        return self._result(
            {
                "accuracy": self._values().nanmean().item(),
                "margin": self._margins().nanmean().item(),
                "coverage": self._coverage(),
            }
        )


def _gold(targets: Tensor | Sequence[Gold], options: Sequence[Sequence[str]] | None, width: int) -> Tensor:
    """bool[B, C]: the right options.

    Raises:
        ValueError: a target is not an option of its question.
    """
    given: Sequence[Any] = targets.tolist() if isinstance(targets, Tensor) else targets
    gold = torch.zeros(len(given), width, dtype=torch.bool)
    for row, target in enumerate(given):
        several = [target] if isinstance(target, int | str) else list(target)
        texts = list(options[row]) if options is not None else []
        numbers = [texts.index(one) if one in texts else -1 if isinstance(one, str) else one for one in several]
        if not numbers or not all(0 <= number < width for number in numbers):
            known = f"the options {texts}" if any(isinstance(one, str) for one in several) else f"[0, {width})"
            raise ValueError(f"Expected targets in {known}, but got {target!r}.")
        gold[row, numbers] = True
    return gold
