"""A run's figures for Lightning's loggers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from tamp_lightning.reporting.plan import Plan


def log_run(loggers: Sequence[Logger], plan: Plan, metrics: Mapping[str, Any] | None) -> None:
    """Give scalars to every logger, and the heat map of sparsity to those of TensorBoard.

    Per block (the step is its number): sparsity and tokens that counted per sample; once: what the benchmarks say.
    """
    for logger in loggers:
        for block in plan.blocks:
            logger.log_metrics(
                {"block/sparsity": plan.block_sparsity(block), "block/tokens_per_sample": plan.block_tokens(block)},
                step=block,
            )
        if metrics is not None:
            logger.log_metrics(_scores(metrics), step=0)
        if isinstance(logger, TensorBoardLogger):
            from tamp_lightning.reporting.figures import sparsity_map
            from tamp_lightning.reporting.style import drawing

            with drawing() as style:
                logger.experiment.add_figure("sparsity", sparsity_map(plan, style), close=True)
        logger.finalize("success")


def _scores(metrics: Mapping[str, Any]) -> dict[str, float]:
    scores = {f"score/{name}_{side}": row[side] for name, row in metrics["benchmarks"].items() for side in SIDES}
    over_all = {name: metrics[name] for name in ("retention", "corrected_retention", "flips")}
    near = metrics["fidelity"]
    return scores | {k: v for k, v in over_all.items() if v is not None} | ({"kl": near["kl"]} if near else {})


SIDES = ("dense", "pruned")
