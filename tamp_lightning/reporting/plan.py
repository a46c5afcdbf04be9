"""plan.json, looked at block by block and type by type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from tamp_lightning.ops.diversity import MODALITIES
from tamp_lightning.ops.names import place_of
from tamp_lightning.runs.plan import Plan, Row


@dataclass(frozen=True)
class Linear:
    """One pruned linear: its block, its name inside it without the number of an expert, and its row of plan.json."""

    block: int
    kind: str
    row: Row


class PlanView:
    """A plan block by block and kind by kind.

    Args:
        plan: of a run; the first number in a linear's name is its block's.
    """

    def __init__(self, plan: Plan) -> None:
        self.linears = [Linear(*place_of(name), row) for name, row in plan.linears.items()]
        self.blocks = sorted({linear.block for linear in self.linears})
        self.kinds = list(dict.fromkeys(linear.kind for linear in self.linears))

    def of(self, *, block: int | None = None, kind: str | None = None) -> Iterator[Linear]:
        """Linears of a block, of a kind, or of both."""
        for linear in self.linears:
            if block in (None, linear.block) and kind in (None, linear.kind):
                yield linear

    def block_sparsity(self, block: int) -> float:
        """Share of a block's prunable weights that were removed."""
        return _sparsity(self.of(block=block))

    def block_tokens(self, block: int) -> float:
        """Tokens of a sample that counted, on average over the block's linears."""
        return fmean(linear.row["tokens_per_sample"] for linear in self.of(block=block))

    def budget(self) -> list[tuple[str, float, float, float]]:
        """Per kind: its name, its share of all prunable weights, its share of those that were kept, its sparsity."""
        sizes = {kind: sum(linear.row["size"] for linear in self.of(kind=kind)) for kind in self.kinds}
        kept = {kind: sum(linear.row["kept"] for linear in self.of(kind=kind)) for kind in self.kinds}
        size_sum, kept_sum = sum(sizes.values()), max(sum(kept.values()), 1)
        return [(k, sizes[k] / size_sum, kept[k] / kept_sum, 1 - kept[k] / sizes[k]) for k in self.kinds]

    def cells(self) -> list[list[float | None]]:
        """Sparsity per kind and block, of all experts together; None where a block has no such linear."""
        held: dict[tuple[str, int], list[Linear]] = {}
        for linear in self.linears:
            held.setdefault((linear.kind, linear.block), []).append(linear)
        found = {place: _sparsity(iter(linears)) for place, linears in held.items()}
        return [[found.get((kind, block)) for block in self.blocks] for kind in self.kinds]

    @property
    def even(self) -> bool:
        """Whether every linear has the same sparsity, to a tenth of a percent."""
        values = [linear.row["sparsity"] for linear in self.linears]
        return max(values) - min(values) < 1e-3

    def diversity(self) -> dict[str, list[float | None]]:
        """Per pair of modalities: 1 - mean cosine of each block, over its linears; empty where it was not measured."""
        pairs = dict.fromkeys(pair for linear in self.linears for pair in linear.row.get("cosine", {}))
        return {pair: [self._pair(block, pair) for block in self.blocks] for pair in pairs}

    def _pair(self, block: int, pair: str) -> float | None:
        held = [linear.row.get("cosine", {}).get(pair) for linear in self.of(block=block)]
        known = [cosine for cosine in held if cosine is not None]
        return 1 - fmean(known) if known else None

    def scores(self) -> list[float] | None:
        """Per block: mean of what an allocation other than DAS measured; None where it measured nothing."""
        if not all("score" in linear.row for linear in self.linears):
            return None
        return [fmean(linear.row["score"] for linear in self.of(block=block)) for block in self.blocks]

    def token_shares(self) -> dict[str, list[float]]:
        """Per modality that occurs: its share of the tokens that counted, by block; empty where none was needed."""
        shares = {name: [self._share(block, name) for block in self.blocks] for name in MODALITIES}
        return {name: values for name, values in shares.items() if any(values)}

    def _share(self, block: int, modality: str) -> float:
        return fmean(linear.row["token_share"][modality] for linear in self.of(block=block))


def _sparsity(linears: Iterator[Linear]) -> float:
    rows = [linear.row for linear in linears]
    return 1 - sum(row["kept"] for row in rows) / sum(row["size"] for row in rows)
