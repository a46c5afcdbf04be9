"""Multiple choice by likelihood: no generation, no parsing."""

from typing import Any, Literal

import torch
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.metrics.table import SCALE, SampleTable, check_lengths

# Margins are clamped to this many nats so that an impossible option (infinite NLL) fits the integer state.
_MARGIN_LIMIT = 1e6
_NO_MARGIN = torch.iinfo(torch.int64).min


class LikelihoodChoice(SampleTable):
    """Accuracy of the option with the lowest negative log-likelihood (NLL); on a tie the first option wins.

    ``compute`` returns ``accuracy``, ``margin`` and ``coverage``. The margin of a sample is the normalised
    NLL, in nats, of the best wrong option minus that of the right one: positive when the answer is right.

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

    def update(self, index: Tensor, nll: Tensor, lengths: Tensor, targets: Tensor) -> None:
        """Score one batch of questions.

        Args:
            index: int64[B], dataset positions.
            nll: [B, C], NLL in nats summed over each option's tokens; padded with inf.
            lengths: [B, C], tokens or characters of each option, as `normalize` says; unused with ``"sum"``.
            targets: int64[B], right option numbers.

        Raises:
            ValueError: if shapes differ, an index is outside the dataset, a NLL is NaN, a target is not an
                option of its question, or a question has fewer than two options of finite NLL.
        """
        check_lengths(index=index, nll=nll, lengths=lengths, targets=targets)
        nll, targets = nll.double().cpu(), targets.long().cpu()
        self._check(nll, targets)
        costs = nll if self.normalize == "sum" else nll / lengths.double().cpu().clamp(min=1)
        rows = torch.arange(len(costs))
        right = costs[rows, targets]
        wrong = costs.clone()
        wrong[rows, targets] = torch.inf
        margin = (wrong.amin(1) - right).clamp(-_MARGIN_LIMIT, _MARGIN_LIMIT)
        self.record(index, (costs.argmin(1) == targets).double().tolist())
        where, device = index.long(), self.margin.device
        fixed = (margin * SCALE).round().long()
        self.margin = self.margin.index_copy(0, where.to(device), fixed.to(device))

    def _check(self, nll: Tensor, targets: Tensor) -> None:
        if nll.isnan().any():
            raise InputError("Expected NLLs that are numbers, but got NaN: the model's logits are not finite.")
        if len(targets) and not (int(targets.min()) >= 0 and int(targets.max()) < nll.shape[1]):
            raise ValueError(f"Expected targets in [0, {nll.shape[1]}), but got {targets.tolist()}.")
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
