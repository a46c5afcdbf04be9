"""What to try next, told from a run's own numbers."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from tamp_lightning.reporting.run import Run
from tamp_lightning.reporting.wording import benchmark_label, method_name, moves_weights, reads_data
from tamp_lightning.runs.folder import RunFolder

MOST = 4
NEAR_FLOOR = 25.0
"""Percent of the dense model's lead over the blind floor, below which a run counts as near the floor."""
NEARLY_ALL = 97.0
"""Percent of the dense scores, above which there is room for more zeros."""
UNEVEN = 20.0
"""Points of retention between the worst benchmark and the mean, above which it is named."""
BLURRED = 10.0
"""Width of the interval of retention, in points, above which more questions are asked for."""
FEW_SAMPLES = 64


@dataclass(frozen=True)
class Advice:
    """One thing to do: what, why, and the command if there is one."""

    what: str
    why: str
    command: str | None = None


def advice(run: Run) -> list[Advice]:
    """At most four suggestions, the most pressing first."""
    found = (rule(run) for rule in RULES)
    return [item for item in found if item is not None][:MOST]


def again(run: Run, suffix: str, *overrides: str) -> str:
    """The command that repeats a run with overrides into a new folder beside it."""
    new = run.folder.with_name(f"{run.folder.name}-{suffix}")
    return shlex.join(["tamp", "run", str(RunFolder(run.folder).recipe), *overrides, f"--out={new}"])


def _unscored(run: Run) -> Advice | None:
    if run.scored is not None:
        return None
    checkpoint = str(RunFolder(run.folder).model)
    if run.model.startswith("smol-llava-next"):
        command = ["tamp", "run", "evaluate_smol", f"--model.checkpoint={checkpoint}"]
    else:
        tokens = run.examples["calibration_tokens"]
        names = "videomme" if tokens.get("video") else "mmbench,pope"
        command = ["tamp", "evaluate", "--checkpoint", checkpoint, "--benchmarks", names]
    why = "No benchmark was scored, so nothing is known of what the zeros cost. Score the checkpoint before using it."
    return Advice("Score the pruned model", why, shlex.join(command))


def _near_floor(run: Run) -> Advice | None:
    above = run.scored and run.scored.above
    if not above or above.value >= NEAR_FLOOR:
        return None
    target = run.recipe["method"]["sparsity"]
    why = (
        f"Of what the dense model knows beyond a blind guesser, {max(above.value, 0):.0f} % is left. So near chance "
        "accuracies hardly tell methods apart: compare them by KL, or where more is left."
    )
    if ":" in run.recipe["method"]["pattern"] or target <= 0.2:
        return Advice("Mind how near chance is", why)
    lower = round(target - 0.2, 2)
    return Advice(
        f"Prune less: {100 * lower:.0f} %", why, again(run, f"{100 * lower:.0f}", f"--method.sparsity={lower}")
    )


def _move_weights(run: Run) -> Advice | None:
    retention = run.scored and run.scored.retention
    method = run.recipe["method"]
    if not retention or retention.value >= NEARLY_ALL or moves_weights(method):
        return None
    why = (
        f"{method_name(method)} leaves the surviving weights as they were. SparseGPT moves them to make up for those "
        "that go; it takes longer and more memory."
    )
    return Advice("Let the surviving weights move", why, again(run, "sparsegpt", "--method.solver=sparsegpt"))


def _more_zeros(run: Run) -> Advice | None:
    retention, method = run.scored and run.scored.retention, run.recipe["method"]
    if not retention or retention.low < NEARLY_ALL or ":" in method["pattern"] or method["sparsity"] > 0.85:
        return None
    higher = round(method["sparsity"] + 0.1, 2)
    why = f"Even the lower end of the interval, {retention.low:.1f} %, keeps nearly all of the dense scores."
    command = again(run, f"{100 * higher:.0f}", f"--method.sparsity={higher}")
    return Advice(f"There is room: try {100 * higher:.0f} %", why, command)


def _uneven(run: Run) -> Advice | None:
    if not run.scored or not run.scored.retention:
        return None
    known = [own for own in run.scored.benchmarks if own.retention]
    worst = min(known, key=lambda own: own.retention.value if own.retention else 0.0)
    mean = run.scored.retention.value
    if worst.retention is None or mean - worst.retention.value < UNEVEN:
        return None
    why = (
        f"{benchmark_label(worst.name)} keeps {worst.retention.value:.0f} % where the mean is {mean:.0f} %. "
        "If it matters to you, calibrate with samples that look like it."
    )
    return Advice(f"Look at {benchmark_label(worst.name)}", why)


def _more_questions(run: Run) -> Advice | None:
    retention, scores = run.scored and run.scored.retention, run.recipe["scores"]
    if not retention or not retention.high - retention.low > BLURRED:
        return None
    width = retention.high - retention.low
    why = f"The interval of retention is {width:.0f} points wide: differences below that mean little."
    if limit := scores.get("limit"):
        return Advice("Ask more questions", why, again(run, "more", f"--scores.limit={4 * limit}"))
    if scores["benchmarks"] not in ("easy_vqa", "clips") or scores["slice"] not in ("demo", "quick"):
        return None
    return Advice("Ask more questions", why, again(run, "standard", "--scores.slice=standard"))


def _more_samples(run: Run) -> Advice | None:
    samples = run.recipe["calibration"]["samples"]
    if samples >= FEW_SAMPLES or not reads_data(run.recipe["method"]):
        return None
    why = f"The statistics rest on {samples} calibration samples; 128 is usual."
    return Advice("Calibrate with more samples", why, again(run, "128", "--calibration.samples=128"))


def _selection(run: Run) -> Advice | None:
    scores = run.recipe["scores"]
    if not run.scored or scores["benchmarks"] not in ("easy_vqa", "clips") or scores["split"] != "test":
        return None
    why = "These are the test questions. Choosing between variants on them makes the chosen one look better than it is."
    return Advice("Choose variants on the selection split", why, again(run, "selection", "--scores.split=selection"))


RULES: tuple[Callable[[Run], Advice | None], ...] = (
    _unscored,
    _near_floor,
    _move_weights,
    _more_zeros,
    _uneven,
    _more_questions,
    _more_samples,
    _selection,
)
