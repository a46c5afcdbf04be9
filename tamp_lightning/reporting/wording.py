"""Plain words for what a recipe's choices are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LABELS = {"yes_no": "yes/no, balanced", "shape": "shape", "colour": "colour"}

NAMES = {
    ("amia", "das", "wanda"): "TAMP",
    ("amia", "uniform", "wanda"): "AMIA",
    ("all", "das", "wanda"): "DAS",
    ("all", "uniform", "wanda"): "Wanda",
    ("atv", "uniform", "wanda"): "ATV",
    ("all", "uniform", "sparsegpt"): "SparseGPT",
    ("all", "uniform", "admm"): "ADMM",
    ("all", "uniform", "ria"): "RIA",
    ("all", "uniform", "magnitude"): "Magnitude",
    ("all", "owl", "wanda"): "OWL",
    ("all", "dlp", "wanda"): "DLP",
    ("all", "alpha", "wanda"): "AlphaPruning",
    ("all", "ecoflap", "wanda"): "ECoFLaP",
}

TOKENS = {
    "all": "every calibration token counts",
    "text_only": "only text tokens count",
    "amia": "the tokens that represent a sample count, found by attention and similarity",
    "atv": "text counts, and the other tokens that a block changes most",
    "modality_mix": "text and other tokens are mixed so that text loses least",
}
ALLOCATION = {
    "uniform": "every linear gives up the same share",
    "constant": "the budget is shared as by DAS with all scores equal",
    "das": "linears whose outputs are more diverse keep more",
    "owl": "blocks with more outliers keep more",
    "dlp": "blocks with a smaller mean score keep more",
    "alpha": "blocks with heavier-tailed spectra keep more",
    "ecoflap": "linears to which the loss is more sensitive keep more",
    "depth_ramp": "later blocks give up more",
}
SOLVER = {
    "magnitude": "the smallest weights go",
    "wanda": "the weights with the smallest size times input norm go",
    "ria": "the weights that matter least to their row and column go",
    "sparsegpt": "weights go column by column and the others move to make up for it",
    "admm": "the weights that stay are solved for anew",
}
PATTERN = {"row": "anywhere in a row", "matrix": "anywhere in a matrix"}


def method_name(method: Mapping[str, Any]) -> str:
    """The published name of a recipe's method, or its choices joined by a cross; the pattern where it is n:m."""
    choices = str(method["tokens"]), str(method["allocation"]), str(method["solver"])
    name = NAMES.get(choices, " × ".join(choices))
    return f"{name} {method['pattern']}" if ":" in str(method["pattern"]) else name


def method_sentence(method: Mapping[str, Any]) -> str:
    """What a method does, in one sentence."""
    pattern = str(method["pattern"])
    where = PATTERN.get(pattern, f"in the pattern {pattern}")
    parts = [TOKENS, ALLOCATION, SOLVER]
    words = [table[str(method[key])] for table, key in zip(parts, ("tokens", "allocation", "solver"), strict=True)]
    if method["solver"] == "magnitude":
        words = words[1:]  # no calibration token is looked at
    if (method.get("correction") or {}).get("tau", 0) > 0:
        words.append("weights are first corrected for what earlier blocks lost")
    if (method.get("polish") or {}).get("steps", 0) > 0:
        words.append("each block is then polished by gradient steps")
    text = "; ".join(words)
    return f"{method_name(method)}: {text}; zeros may stand {where}."


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
