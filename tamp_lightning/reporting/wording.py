"""Plain words for what a recipe's choices are called."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from tamp_lightning.methods.method import CHOICES

LABELS = {"yes_no": "yes/no, balanced", "shape": "shape", "colour": "colour"}

WANDA = {"tokens": "all", "allocation": "uniform", "solver": "wanda"}
"""What a method is called by the title of, where it departs from this in one choice."""
TAMP = {"tokens": "amia", "allocation": "das", "solver": "wanda"}


def in_words(choice: str, name: str) -> str:
    """What a member does, in its own words or by the first line of its docstring; its name if it is not installed."""
    member = CHOICES[choice].get(name)
    said = getattr(member, "says", None) or (inspect.getdoc(member) or name if member else name).splitlines()[0]
    return str(said).rstrip(".")


def moves_weights(method: Mapping[str, Any]) -> bool:
    """Whether the weights that stay change."""
    solver = CHOICES["solver"].get(str(method.get("solver")))
    return bool(getattr(solver, "moves", False)) or _moves_around_solver(method)


def reads_data(method: Mapping[str, Any]) -> bool:
    """Whether pruning looks at any calibration token."""
    solver = CHOICES["solver"].get(str(method.get("solver")))
    return getattr(solver, "needs", "") != "nothing" or _moves_around_solver(method)


def method_name(method: Mapping[str, Any]) -> str:
    """The published name of a recipe's method, or its choices joined by a cross; the pattern where it is n:m."""
    choices = {choice: str(method[choice]) for choice in WANDA}
    other = [choice for choice in WANDA if choices[choice] != WANDA[choice]] or ["solver"]
    title = getattr(CHOICES[other[0]].get(choices[other[0]]), "title", None) if len(other) == 1 else None
    name = "TAMP" if choices == TAMP else title or " × ".join(choices.values())
    return f"{name} {method['pattern']}" if ":" in str(method["pattern"]) else name


def method_sentence(method: Mapping[str, Any]) -> str:
    """What a method does, in one sentence."""
    pattern = str(method["pattern"])
    where = in_words("pattern", pattern) if pattern in CHOICES["pattern"] else f"in the pattern {pattern}"
    words = [in_words(choice, str(method[choice])) for choice in WANDA if choice != "tokens" or reads_data(method)]
    if _corrects(method):
        words.append("weights are first corrected for what earlier blocks lost")
    if _refits(method):
        words.append("the weights that stay are then fitted by least squares")
    if _reconstructs(method):
        what = ", norms and biases too," if trains_norms(method) else ""
        words.append(f"each block is then reconstructed{what} by gradient steps")
    text = "; ".join(words)
    return f"{method_name(method)}: {text}; zeros may stand {where}."


def _moves_around_solver(method: Mapping[str, Any]) -> bool:
    """Whether any step before or after the solver moves weights; all of them read tokens."""
    return _corrects(method) or _refits(method) or _reconstructs(method)


def _corrects(method: Mapping[str, Any]) -> bool:
    return (method.get("correction") or {}).get("tau", 0) > 0


def _refits(method: Mapping[str, Any]) -> bool:
    return (method.get("refit") or {}).get("steps", 0) > 0


def _reconstructs(method: Mapping[str, Any]) -> bool:
    """Also by its old name, in the recipes of finished runs."""
    return (method.get("reconstruct") or method.get("polish") or {}).get("steps", 0) > 0


def trains_norms(method: Mapping[str, Any]) -> bool:
    """Whether norms and biases change too."""
    return _reconstructs(method) and bool((method.get("reconstruct") or {}).get("norms"))


def benchmark_label(name: str) -> str:
    """A benchmark's name as people write it."""
    return LABELS.get(name, name)


def short(kind: str, kinds: Sequence[str]) -> str:
    """`q_proj` of `self_attn.q_proj`, unless another kind ends alike."""
    last = kind.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in kinds) == 1 else kind


def count(value: float) -> str:
    """A large number in three figures: 106 M."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:.0f}"


def size(value: float) -> str:
    """Bytes in three figures: 1.54 GiB."""
    for power, name in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if value >= 2**power:
            return f"{value / 2**power:.3g} {name}"
    return f"{value:.0f} B"


def duration(value: float) -> str:
    """Seconds as people say it: 2 min 14 s."""
    seconds = round(value)
    if seconds < 60:
        return f"{value:.1f} s" if value < 10 else f"{seconds} s"
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s"


def figure(value: float, sign: bool = False, decimals: int = 1) -> str:
    """A number with so many decimals and a real minus; with a plus where `sign` is wanted."""
    text = f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"
    return text.replace("-", "−")


def p_value(p: float) -> str:
    """A p as it is written."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def points(change: Any) -> str:
    """A difference of shares in points, with its 95 % interval where it has one; `mean`, `low` and `high`."""
    text = f"{figure(100 * change.mean, True)} points"
    if not change.low < change.high:
        return text
    return f"{text} (95 % interval {figure(100 * change.low, True)} to {figure(100 * change.high, True)})"
