"""Sums over calibration tokens of what every linear of the current block reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.distributed.collectives import all_gather, check_same, gather_by_id, reduce_to_first
from tamp_lightning.distributed.sums import OrderedSum
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.statistics import Statistics
from tamp_lightning.methods.tokens import Amia, TokenContext
from tamp_lightning.ops.diversity import MODALITIES
from tamp_lightning.ops.hessian import weighted_cross, weighted_gram
from tamp_lightning.ops.stats import weighted_square_sum
from tamp_lightning.passes.callbacks.attention import AttentionCollector
from tamp_lightning.passes.callbacks.dense import DenseTwin
from tamp_lightning.passes.callbacks.drift import DriftCollector
from tamp_lightning.passes.callbacks.experts import ExpertStatistics
from tamp_lightning.passes.callbacks.tokens import check_finite, unreached
from tamp_lightning.passes.contract import BlockPass, Pass, PassCallback, Tokens, TokenSource
from tamp_lightning.passes.expert_sums import Seen

OnWeights = Callable[[BlockPass, Mapping[Linear, Tensor]], None]

WHOLE = -1
"""The part of the tokens that is not one modality but all of them."""


@dataclass
class Sums:
    """Of one part of one linear's tokens."""

    samples: dict[int, Tensor] = field(default_factory=dict)
    """Sample id -> float64 [c], sum of w x^2; added up in the order of ids, whatever the batches were."""
    masses: dict[int, Tensor] = field(default_factory=dict)
    """Sample id -> float64 [4], sum of w per modality; likewise."""

    def to_cpu(self) -> None:
        """Bring the rows of all samples from the device, in one copy."""
        for rows in (self.samples, self.masses):
            if rows:
                rows.update(zip(list(rows), torch.stack(list(rows.values())).cpu(), strict=True))

    def finite(self) -> Tensor:
        """Whether each sample's sum is, bool [samples]."""
        return torch.stack(list(self.samples.values())).isfinite().all(1)

    @property
    def weight_sum(self) -> Tensor:
        """Sum of w per modality over all samples, float64 [4]."""
        return torch.stack([self.masses[i] for i in sorted(self.masses)]).sum(0)

    def total(self) -> Tensor:
        """Sum of w x^2 over the samples, float64 [c]."""
        return torch.stack([self.samples[i] for i in sorted(self.samples)]).sum(0)


@dataclass(frozen=True)
class TokenUse:
    """How much the tokens of one linear counted; all zero where none was needed."""

    share: list[float]
    """Share of each modality (text, image, video, audio) in the sum of token weights."""
    per_sample: float
    """Sum of token weights, averaged over the samples."""


@dataclass(frozen=True)
class Snapshot:
    """The diagonal statistics of a block that is pruned later."""

    sums: dict[Linear, dict[int, Sums]]
    count: int
    experts: ExpertStatistics


@dataclass
class Matrices:
    """Second moments, shared by the linears that read the same tokens with the same weights."""

    leader: dict[Linear, Linear] = field(default_factory=dict)
    """Linear -> the first of those it shares with."""
    grams: dict[tuple[Linear, int], OrderedSum] = field(default_factory=dict)
    """(leader, part) -> float32 [c, c]."""
    crosses: dict[Linear, OrderedSum] = field(default_factory=dict)
    """Leader -> float32 [c, c]."""

    def share(self, linear: Linear, leader: Linear) -> bool:
        """Note who leads `linear`; True if it leads itself, so that there is something to add up."""
        if self.leader.setdefault(linear, leader) != leader:
            raise RuntimeError(f"{linear} shares its input with {leader} in one batch and not in another")
        return linear == leader


class StatisticsCollector(PassCallback):
    """Collects what the solver needs during a block's "collect" pass of the prune walk (`of` gives it back).

    Args:
        method: what is collected.
        source: what the linears see.
        attention: where tokens are chosen by it.
        drift: likewise.
        dense: the dense model beside the pruned one, where weights are corrected towards it.
        on_weights: is handed the token weights [B,n] of each linear of a batch.

    Attributes:
        token_weights: mean over the linears of the weights of a batch's tokens [B,n], by its number in this process;
            empty unless reconstruction weighs by them.
    """

    def __init__(
        self,
        method: Method,
        source: TokenSource,
        attention: AttentionCollector | None = None,
        drift: DriftCollector | None = None,
        dense: DenseTwin | None = None,
        on_weights: OnWeights | None = None,
    ) -> None:
        self.method, self.source, self.on_weights = method, source, on_weights
        self.attention, self.drift, self.dense = attention, drift, dense
        self._samples: set[int] = set()
        self.clear()

    def wanted(self, now: Pass) -> bool:
        """The pass that collects, if the solver reads any statistics, or a dense model has to keep up."""
        return now.collects and (self.method.statistics != "nothing" or self.dense is not None)

    def clear(self) -> None:
        """Forget the block."""
        self._sums: dict[Linear, dict[int, Sums]] = {}
        self._own, self._all = Matrices(), Matrices()
        self._count: int | Tensor = 0
        self._experts = ExpertStatistics(self.method)
        self.token_weights: dict[int, Tensor] = {}

    def snapshot(self) -> Snapshot:
        """Hand out the block's statistics, samples added up, and forget it; `restore` undoes that."""
        for parts in self._sums.values():
            for sums in parts.values():
                sums.samples = {0: sums.total()}
        snapshot = Snapshot(self._sums, int(self._count), self._experts)
        self.clear()
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Make a block the current one again."""
        self._sums, self._count, self._experts = snapshot.sums, snapshot.count, snapshot.experts

    @torch.no_grad()
    def batch_passed(self, pl_module: BlockPass, batch: object, batch_idx: int) -> None:
        """Add this batch's samples to the statistics of every linear of the block, without waiting for the device.

        Raises:
            InputError: a token that counts and was routed to an expert has a NaN or infinite activation.
        """
        context, routed = self._context(pl_module), self.source.routed()
        tokens = {**self.source.latest(), **{one: Tokens(own.hidden, own.outputs) for one, own in routed.items()}}
        twins = self.dense.tokens(pl_module, batch_idx) if self.dense else {}
        beside = self.dense.routed() if self.dense else {}
        if self.method.statistics == "nothing":
            return
        self._samples.update(pl_module.current.ids.tolist())
        partition = pl_module.partition
        ids = pl_module.current.ids
        step = _Step(context, ids, partition.leaf(partition.own[batch_idx]), self._learnt_from(ids, context.valid), {})
        self._count = step.everything.sum() + self._count
        # all at once, so that no two share an id because one is gone already
        weighed = self._weights(context, tokens, pl_module.stream.facts.attends(pl_module.index))
        for linear, weights in weighed.items():
            if linear in routed:
                seen = Seen(step.ids, context.modality, partition.processes == 1)
                parts = self._parts(step, weights)
                self._experts.add(linear, routed[linear], parts, context.valid, seen, beside.get(linear))
                continue
            self._add_diagonal(step, linear, tokens[linear], weights)
            if self.method.statistics == "hessian":
                self._add_matrices(step, linear, tokens[linear], weights, twins.get(linear))
        if self.on_weights:
            self.on_weights(pl_module, weighed)
        if self.method.reconstruct.on and self.method.reconstruct.weigh == "rule" and weighed:
            self.token_weights[batch_idx] = torch.stack([own.float() for own in weighed.values()]).mean(0)

    def pass_ends(self, pl_module: BlockPass) -> None:
        """Put the statistics of all processes together: sums by sample in each, second moments in the first alone.

        Raises:
            InputError: a token that counts has a NaN or infinite activation.
        """
        partition = pl_module.partition
        self._count = int(self._count)
        for linear, parts in self._sums.items():
            for sums in parts.values():
                sums.to_cpu()
                check_finite(linear.full, "inputs", sums.finite(), torch.tensor(list(sums.samples)))
        if partition.processes == 1:
            return
        check_same(partition, [linear.full for linear in self._sums])
        for parts in self._sums.values():
            for sums in parts.values():
                sums.samples, sums.masses = gather_by_id(partition, sums.samples), gather_by_id(partition, sums.masses)
        for store in (self._own.grams, self._own.crosses, self._all.grams):
            reduce_to_first(partition, store.values())
        self._experts.share_out(partition)
        self._count = sum(all_gather(partition, self._count))
        self._samples.update(*all_gather(partition, self._samples))

    def _context(self, pl_module: BlockPass) -> TokenContext:
        current = pl_module.current
        return TokenContext(
            current.modality,
            current.counted,
            attention=self.attention.of(pl_module) if self.attention else None,
            drift=self.drift.rows(pl_module) if self.drift else None,
            mean_drift=self.drift.mean() if self.drift else None,
        )

    def _weights(self, context: TokenContext, tokens: Mapping[Linear, Tokens], attends: bool) -> dict[Linear, Tensor]:
        """Token weights of each linear; one object for those that weigh tokens alike.

        A rule that chooses by attention has nothing to choose by in a block without it: all tokens count there.
        """
        rule = self.method.token_rule
        if rule.needs_attention and not attends:
            return dict.fromkeys(tokens, context.valid)
        if not isinstance(rule, Amia):
            return dict.fromkeys(tokens, rule.weights(context))
        groups: dict[int, dict[str, Tensor]] = {}
        for linear, own in tokens.items():
            groups.setdefault(id(own.inputs), {})[linear.name] = own.outputs
        chosen = rule.by_linear(context, list(groups.values()))
        return {linear: chosen[linear.name] for linear in tokens}

    def _parts(self, step: _Step, weights: Tensor) -> dict[int, Tensor]:
        """Token weights of each part that is summed up by itself."""
        trial, own = self.method.trial, self._learnt_from(step.ids, weights)
        if trial is None or trial.constant != "lambda":
            return {WHOLE: own}
        return {m: own & (step.context.modality == m) for m in range(len(MODALITIES))}

    def _learnt_from(self, ids: Tensor, weights: Tensor) -> Tensor:
        """Token weights without those of samples that are held out."""
        trial = self.method.trial
        if trial is None:
            return weights
        learns = torch.tensor([not trial.judges(i) for i in ids.tolist()], device=weights.device)
        return torch.where(learns[:, None], weights, torch.zeros_like(weights))

    def _add_diagonal(self, step: _Step, linear: Linear, tokens: Tokens, weights: Tensor) -> None:
        key, ids = id(tokens.inputs), step.ids
        if id(weights) not in step.parts:
            step.parts[id(weights)] = self._parts(step, weights)
        for part, own in step.parts[id(weights)].items():
            if (key, id(own)) not in step.rows:  # q, k and v read the same input: add it up once, if weighed alike
                step.rows[key, id(own)] = weighted_square_sum(tokens.inputs, own)
            rows = step.rows[key, id(own)]
            sums = self._sums.setdefault(linear, {}).setdefault(part, Sums())
            sums.samples.update(zip(ids.tolist(), rows, strict=True))
            mass = torch.zeros(len(ids), len(MODALITIES), dtype=torch.float64, device=own.device)
            mass.scatter_add_(1, step.context.modality, own.double())
            sums.masses.update(zip(ids.tolist(), mass, strict=True))

    def _add_matrices(self, step: _Step, linear: Linear, tokens: Tokens, weights: Tensor, twin: Tokens | None) -> None:
        inputs = tokens.inputs
        if self._own.share(linear, step.leaders.setdefault((id(inputs), id(weights)), linear)):
            for part, own in step.parts[id(weights)].items():
                _sum(self._own.grams, (linear, part)).add(step.leaf, weighted_gram(inputs, own))
            if twin is not None:
                own = step.parts[id(weights)][WHOLE]
                _sum(self._own.crosses, linear).add(step.leaf, weighted_cross(twin.inputs, inputs, own))
        if not self.method.blends or weights is step.context.valid:
            return
        if self._all.share(linear, step.leaders.setdefault((id(inputs), 0), linear)):
            _sum(self._all.grams, (linear, WHOLE)).add(step.leaf, weighted_gram(inputs, step.everything))

    def of(self, linear: Linear) -> dict[int, Statistics]:
        """Statistics of a linear's inputs, by part: everything under `WHOLE`, or one entry per modality.

        Complete in the first process, once the pass is over.

        Raises:
            InputError: the linear was not reached by any token.
        """
        if self.method.statistics == "nothing":
            return {WHOLE: Statistics()}
        if linear.piece is not None:
            return self._experts.of(linear)
        if linear not in self._sums:
            raise unreached(linear)
        leader, everything = self._own.leader.get(linear, linear), self._all.leader.get(linear, linear)
        return {
            part: Statistics(
                sq_norm=sums.total(),
                weight_sum=float(sums.weight_sum.sum()),
                hessian=_total(self._own.grams, (leader, part)),
                hessian_all_tokens=_total(self._all.grams, (everything, part)),
                count=int(self._count),
                cross=_total(self._own.crosses, leader),
            )
            for part, sums in self._sums[linear].items()
        }

    def use(self, linear: Linear) -> TokenUse:
        """How much the tokens of each modality counted in a linear."""
        mass = self._weight_sum(linear)
        share = mass / mass.sum().clamp(min=torch.finfo(mass.dtype).tiny)
        return TokenUse(share.tolist(), float(mass.sum()) / max(len(self._samples), 1))

    def expert_tokens(self, linear: Linear) -> int | None:
        """How many tokens that count were routed to a matrix's expert; None for other linears, or if none is needed."""
        return self._experts.tokens(linear) if linear.piece is not None and self._experts.layers else None

    def _weight_sum(self, linear: Linear) -> Tensor:
        """Sum of a linear's token weights per modality, float64 [4]; zero if no token was needed."""
        if linear.piece is not None and self._experts.layers:
            return self._experts.weight_sum(linear)
        parts = self._sums.get(linear, {}).values()
        zero = torch.zeros(len(MODALITIES), dtype=torch.float64)
        return torch.stack([sums.weight_sum for sums in parts]).sum(0) if parts else zero


@dataclass
class _Step:
    """What the linears of one batch share."""

    context: TokenContext
    ids: Tensor
    leaf: int
    everything: Tensor
    """Tokens [B,n] that are no padding, of samples that are not held out."""
    parts: dict[int, dict[int, Tensor]]
    rows: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    leaders: dict[tuple[int, int], Linear] = field(default_factory=dict)


def _sum(store: dict, key: object) -> OrderedSum:
    return store.setdefault(key, OrderedSum())


def _total(store: dict, key: object) -> Tensor | None:
    return store[key].total() if key in store else None
