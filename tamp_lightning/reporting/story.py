"""The sentences and figures of a report, told from the run's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tamp_lightning.metrics.intervals import Interval
from tamp_lightning.reporting.gallery import chosen_samples, offered
from tamp_lightning.reporting.run import Run
from tamp_lightning.reporting.wording import count, duration, figure, in_words, method_name, short, size


class Tile(NamedTuple):
    """A figure of the summary: what, how much, and what goes with it."""

    label: str
    big: str
    small: str = ""


def interval(value: Interval | None, unit: str = " %") -> str:
    """The 95 % interval in words, empty where there is no figure."""
    return (
        ""
        if value is None or value.low != value.low
        else f"95 % interval {figure(value.low)} to {figure(value.high)}{unit}"
    )


def title(run: Run) -> str:
    """Headline: which model, which method, how sparse."""
    return f"{run.model}, {100 * run.run['sparsity']:.0f} % pruned with {method_name(run.recipe['method'])}"


def verdict(run: Run) -> str:
    """The run in two or three sentences."""
    gone, prunable = run.run["zeroed_weights"], run.run["prunable_weights"]
    text = f"{count(gone)} of {count(prunable)} prunable weights are zero now."
    if not run.scored:
        return f"{text} What that cost is not known: no benchmark was scored."
    retention, above, asked = run.scored.retention, run.scored.above, len(run.scored.rows)
    if retention is None:
        return f"{text} On {asked:,} questions the dense model scores nothing on some benchmark: no retention."
    text += f" On {asked:,} questions the model keeps {retention.value:.0f} % of its scores"
    if above is None:
        return f"{text}; some dense score is no better than chance, so this says little."
    if above.low > 0 or (above.low != above.low and above.value > 0):
        return f"{text}, and {above.value:.0f} % of what it knew beyond a blind guess."
    return f"{text}; of what it knew beyond a blind guess nothing measurable is left."


def tiles(run: Run) -> list[Tile]:
    """Summary: quality first, then size, time and memory."""
    data = run.run
    target = 100 * run.recipe["method"]["sparsity"]
    found = [
        Tile(
            "sparsity",
            f"{100 * data['sparsity']:.2f} %",
            f"target {target:.2f} %, counted from {data['linears']} masks",
        )
    ]
    if run.scored:
        for label, value in (("retention", run.scored.retention), ("above chance", run.scored.above)):
            found.append(Tile(label, f"{figure(value.value)} %" if value else "–", interval(value)))
        if run.scored.kl is not None:
            found.append(Tile("KL to dense", f"{run.scored.kl:.3g} nats", "mean over answer tokens, 0 = unchanged"))
        flipped = 100 * run.scored.metrics["flips"]
        found.append(Tile("answers flipped", f"{flipped:.1f} %", "right to wrong or wrong to right"))
    if "parameters" in data:
        after = data["parameters"] - data["zeroed_weights"] - _zeroed_in_towers(data)
        sizes = data["checkpoint_bytes"]
        found.append(Tile("weights not pruned", count(after), f"of {count(data['parameters'])} in the whole model"))
        found.append(Tile("on disk", size(sizes["pruned"]), f"{size(sizes['dense'])} before"))
    seconds = data["seconds"]
    walks = sum(seconds.get(name, 0.0) for name in ("measure", "prune"))
    found.append(Tile("time to prune", duration(walks), f"{duration(sum(seconds.values()))} with everything else"))
    memory = data["peak_memory_bytes"]
    gpu = f"GPU {size(memory['gpu'])}" if "gpu" in memory else f"on {data['device']}, {data['dtype']}"
    found.append(Tile("peak memory", size(memory["ram"]), gpu))
    return found


def _zeroed_in_towers(data: Mapping[str, Any]) -> int:
    """Weights of towers and projector that were removed."""
    towers = data.get("towers")
    return round(towers["sparsity"] * towers["prunable_weights"]) if towers else 0


def details(run: Run) -> list[tuple[str, str]]:
    """What somebody who repeats the run may want to know."""
    data, calibration, scores = run.run, run.recipe["calibration"], run.recipe["scores"]
    scored = "none" if not run.scored else _benchmarks(scores)
    return [
        ("checkpoint", str(data["checkpoint"])),
        ("pruned from", str(data["source"])),
        ("calibration", f"{calibration['samples']} samples of {calibration['source']}, seed {calibration['seed']}"),
        ("benchmarks", scored),
        *((name, duration(value)) for name, value in data["seconds"].items()),
        ("seed", str(data["seed"])),
        ("threads", f"{data['threads']}, {data['cpu_capability']}"),
        ("Python", str(data["python"])),
        *((name, str(value)) for name, value in data["packages"].items()),
    ]


def _benchmarks(scores: Mapping[str, Any]) -> str:
    names = scores["benchmarks"]
    if names in ("easy_vqa", "clips"):
        return f"{names}, {scores['split']} split, {scores['slice']} slice"
    listed = names if isinstance(names, str) else ", ".join(names)
    limit = f", {scores['limit']} questions of each" if scores.get("limit") else ""
    return f"{listed}{limit}"


def zeros(run: Run) -> str:
    """The sparsest and the densest linear of the decoder; the towers, where they were pruned too."""
    towers = run.run.get("towers")
    if not towers:
        return _decoder_zeros(run)
    return (
        f"{_decoder_zeros(run)} Towers and projector lost {100 * towers['sparsity']:.1f} % of "
        f"{count(towers['prunable_weights'])} weights, the same share in each of {towers['linears']} linears; "
        "what follows is about the decoder."
    )


def _decoder_zeros(run: Run) -> str:
    plan = run.plan
    if plan.even:
        return f"Every linear gave up the same share of its weights, {100 * run.run['sparsity']:.1f} %."

    def named(linear: Any) -> str:
        where = f"{short(linear.kind, plan.kinds)} of block {linear.block + 1}"
        return f"{where} ({100 * linear.row['sparsity']:.1f} % removed)"

    ranked = sorted(plan.linears, key=lambda linear: linear.row["sparsity"])
    whole = sum(linear.row["sparsity"] == 0 for linear in ranked)
    text = f"Hardest hit was {named(ranked[-1])}, least {named(ranked[0])}."
    return f"{text} {whole} linears kept every weight." if whole > 1 else text


def allocation(run: Run) -> str:
    """What the budget was shared by."""
    name = run.recipe["method"]["allocation"]
    words = in_words("allocation", name)
    if run.plan.diversity():
        return f"The budget was shared by {name}: {words}. Diversity was measured on the dense model, in its own walk."
    measured = "" if run.plan.scores() else " Nothing was measured for it."
    return f"The budget was shared by {name}: {words}.{measured}"


def tokens(run: Run) -> str:
    """Which tokens counted, and how many of a sample."""
    name, plan = run.recipe["method"]["tokens"], run.plan
    if not plan.token_shares():
        return "The solver reads weights alone, so no calibration token was looked at."
    mean = sum(plan.block_tokens(block) for block in plan.blocks) / len(plan.blocks)
    total = sum(run.examples["calibration_tokens"].values())
    of = f" of {total / run.recipe['calibration']['samples']:.0f}" if total else ""
    text = f"Token rule {name}: {in_words('tokens', name)}. On average {mean:.1f}{of} tokens of a sample counted."
    if not chosen_samples(run):
        return text
    return f"{text} Below, the first samples that are not text alone, as the first, middle and last block saw them."


def token_caption(run: Run) -> str:
    """What the figure of token shares says."""
    text = "Share of each modality among the tokens that counted, averaged over the linears of a block."
    return f"{text} The bar on the left: all calibration tokens." if offered(run) else text


def medium(content: Mapping[str, Any]) -> str:
    """What the figure of one medium's tokens says."""
    number = content["tokens"]
    if "grids" in content:
        return (
            f"{number} tokens. The stronger the orange, the more linears of the block chose the patch. LLaVA-NeXT sees "
            "the whole picture once (overview) and again in high resolution (details); tokens that end a row are not "
            "shown."
        )
    kind = content["kind"]
    order = "from its start to its end" if kind in ("video", "audio") else "in the order of its tokens"
    return f"{number} tokens of the {kind} {order}: share of a block's linears that chose them."
