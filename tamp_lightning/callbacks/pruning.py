"""Masks at epoch end: the statistics of one pass over a block decide which of its weights go."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor

from tamp_lightning.callbacks.attention import AttentionCollector
from tamp_lightning.callbacks.contract import BlockPass
from tamp_lightning.callbacks.tokens import TokenCollector, check_finite, unreached
from tamp_lightning.methods.method import Method
from tamp_lightning.ops.stats import squares, weighted_sum


def mask_sha256(mask: Tensor) -> str:
    """Hash of a mask's bits in row order."""
    return hashlib.sha256(pack_bits(mask).numpy().tobytes()).hexdigest()


def pack_bits(mask: Tensor) -> Tensor:
    """Bits of a bool mask in row order, eight to a uint8, the first in the highest bit; the tail is zero."""
    bits = mask.flatten().cpu().to(torch.uint8)
    bits = torch.nn.functional.pad(bits, (0, -len(bits) % 8)).view(-1, 8)
    return (bits << torch.arange(7, -1, -1, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


class PruningCallback(L.Callback):
    """Collects per-sample statistics of the current block during its pass, then masks it and commits it.

    Attributes:
        masks: packed bits of every mask by full linear name (`pack_bits`).
        report: per linear, weights kept, weights in all, and the mask's sha256.
        token_share: per linear, share of each modality (text, image, video, audio) among the tokens that counted,
            and how many tokens a sample contributed on average.
    """

    def __init__(self, method: Method, collector: TokenCollector, attention: AttentionCollector | None) -> None:
        self.method, self.collector, self.attention = method, collector, attention
        self.masks: dict[str, Tensor] = {}
        self.report: dict[str, dict[str, Any]] = {}
        self.token_share: dict[str, list[float]] = {}
        self._samples: dict[str, dict[int, Tensor]] = {}
        self._picked: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: BlockPass, *_: object) -> None:
        """Add this batch's samples to the statistics of every linear of the block.

        Raises:
            ValueError: a token that counts has a NaN or infinite activation.
        """
        if pl_module.walk != "prune":
            return
        current, rule = pl_module.current, self.method.token_rule
        rows = self.attention.rows if self.attention else None
        squared: dict[int, Tensor] = {}  # q, k and v read the same input: square it once
        for name, tokens in self.collector.tokens.items():
            key = id(tokens.inputs)
            if key not in squared:
                squared[key] = squares(tokens.inputs, current.valid)
            weights = rule.weights(tokens.outputs, rows, current.modality, current.valid)
            self._add(pl_module, name, weighted_sum(squared[key], weights))
            self._count(name, weights, current.modality)

    def _add(self, pl_module: BlockPass, name: str, statistics: Tensor) -> None:
        ids = pl_module.current.ids
        full = pl_module.stream.facts.linear_name(pl_module.index, name)
        check_finite(full, "inputs", statistics.isfinite().all(1), ids)
        self._samples.setdefault(name, {}).update(zip(ids.tolist(), statistics.cpu(), strict=True))

    def _count(self, name: str, weights: Tensor, modality: Tensor) -> None:
        mass = torch.zeros(4, dtype=torch.float64, device=weights.device)
        mass.index_add_(0, modality.flatten(), weights.flatten().double())
        self._picked[name] = self._picked.get(name, 0) + mass.cpu()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Mask every linear of the block as planned, zero what goes, hand the block back."""
        if pl_module.walk != "prune":
            return
        masks = {name: self._prune(pl_module, name) for name in pl_module.stream.facts.linears[pl_module.index]}
        pl_module.stream.commit(pl_module.index, masks)
        self._samples.clear()
        self._picked.clear()

    @torch.no_grad()
    def _prune(self, pl_module: BlockPass, name: str) -> Tensor:
        full = pl_module.stream.facts.linear_name(pl_module.index, name)
        if name not in self._samples:
            raise unreached(full)
        samples = self._samples[name]
        statistics = torch.stack([samples[i] for i in sorted(samples)]).sum(0)
        weight = pl_module.block.get_parameter(f"{name}.weight")
        scores = self.method.solver_rule.scores(weight, statistics.to(weight.device))
        mask = self.method.pattern_rule.mask(scores, _planned(pl_module.plan, full))
        weight.masked_fill_(~mask, 0)
        kept = int(mask.sum())
        self.masks[full] = pack_bits(mask)
        self.report[full] = {"kept": kept, "size": mask.numel(), "shape": list(mask.shape), "sha256": mask_sha256(mask)}
        self.token_share[full] = [*(self._picked[name] / self._picked[name].sum()).tolist()]
        self.report[full]["tokens_per_sample"] = float(self._picked[name].sum()) / len(samples)
        return mask


def _planned(plan: Mapping[str, int] | None, name: str) -> int:
    if plan is None:
        raise RuntimeError("no budget was allocated: AllocationCallback has to stand before PruningCallback")
    return plan[name]
