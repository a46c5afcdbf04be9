"""Time of AMIA and DAS against their Gram matrices and a literal AMIA, how both grow, what precision changes.

python perf/speed_ops.py
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from literal_amia import literal_amia, literal_density
from measure import save, seconds
from torch import Tensor

from tamp_lightning.ops.diversity import modality_cosine
from tamp_lightning.ops.gram import cosine_gram
from tamp_lightning.ops.tokens import Picking, select_representative

TOKENS, TEXT = 2900, 500
THRESHOLDS = (0.1, 0.015, 0.005)
"""Of the stopping rule: the paper's, and smaller ones for about 200 and 500 picks."""


def sample(n: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs in clusters, attention with a heavy tail and mostly on text, modality: text first, then a picture."""
    g = torch.Generator().manual_seed(seed)
    modality = (torch.arange(n) >= n * TEXT // TOKENS).long()
    cluster = torch.randint(0, 8, (n,), generator=g) + 8 * modality
    centres = torch.randn(16, d, generator=g)
    outputs = 1.5 * torch.randn(n, d, generator=g) + centres[cluster] + 0.3 * torch.randn(d, generator=g)
    attention = torch.rand(n, generator=g) ** 4 * torch.where(modality == 0, 8.0, 1.0)
    return outputs, attention / attention.sum(), modality


def picked(mask: Tensor) -> set[int]:
    return set(mask.nonzero().flatten().tolist())


def overlap(a: set[int], b: set[int]) -> float:
    """1 where two sets are the same."""
    return len(a & b) / len(a | b)


def amia_rows(d: int, dtype: torch.dtype) -> Iterator[dict[str, Any]]:
    """The literal loop and the Gram beside it work in float32, on the same values."""
    outputs, attention, modality = sample(TOKENS, d)
    rounded = outputs.to(dtype)
    outputs = rounded.float()
    units = torch.nn.functional.normalize(outputs)
    gram = seconds(lambda: units @ units.T, 7)
    for threshold in THRESHOLDS:

        def ours(threshold: float = threshold) -> Tensor:
            return select_representative(rounded, attention, modality, Picking(threshold=threshold))

        def literal(threshold: float = threshold) -> list[int]:
            return literal_amia(outputs, attention, modality == 1, threshold)

        own, theirs = seconds(ours, 7), seconds(literal, 1)
        yield {
            "outputs": str(dtype).removeprefix("torch."),
            "width": d,
            "picks": int(ours().sum()),
            "overlap": overlap(picked(ours()), set(literal())),
            "seconds": own,
            "Gram": gram,
            "x Gram": own / gram,
            "literal": theirs,
            "speed-up": theirs / own,
        }


def marginal(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Cost of one more pick, from runs that differ in nothing but their number of picks."""
    for first, last in zip(rows[:: len(THRESHOLDS)], rows[len(THRESHOLDS) - 1 :: len(THRESHOLDS)], strict=True):
        more = last["picks"] - first["picks"]
        own, theirs = ((last[key] - first[key]) / more for key in ("seconds", "literal"))
        of = {"outputs": first["outputs"], "width": first["width"], "picks": f"{first['picks']} to {last['picks']}"}
        yield {**of, "seconds": own, "literal": theirs, "literal / ours": theirs / own}


def das_rows() -> Iterator[dict[str, Any]]:
    for d in (1024, 4096):
        outputs, _, modality = sample(TOKENS, d)
        units = torch.nn.functional.normalize(outputs)
        a, b = units[modality == 0], units[modality == 1]
        grams = seconds(lambda a=a, b=b: (a @ a.T, b @ b.T, a @ b.T), 7)
        own = seconds(lambda outputs=outputs, modality=modality: modality_cosine(outputs, modality), 7)
        literal = seconds(lambda units=units, modality=modality: literal_density(units, modality == 1), 3)
        row = {"width": d, "seconds": own, "three Grams": grams, "their means too": literal}
        yield {**row, "over the Grams": grams / own, "over both": literal / own}


def growth() -> Iterator[dict[str, Any]]:
    """Exponent of time in tokens, width and samples: log of times over log of sizes, ends of a range."""
    for what, sizes, make in (
        ("AMIA, tokens", (725, 1450, 2900), lambda k: (1, k, 1024)),
        ("AMIA, width", (1024, 2048, 4096), lambda k: (1, 1450, k)),
        ("AMIA, samples", (1, 2, 4), lambda k: (k, 725, 1024)),
        ("DAS, tokens", (1450, 2900, 5800), lambda k: (1, k, 1024)),
        ("DAS, width", (1024, 2048, 4096), lambda k: (1, 2900, k)),
    ):
        times = []
        for size in sizes:
            batch, n, d = make(size)
            parts = [torch.stack(t) for t in zip(*(sample(n, d, seed) for seed in range(batch)), strict=True)]
            if what.startswith("AMIA"):
                times.append(seconds(lambda parts=parts: select_representative(*parts), 5))
            else:
                times.append(seconds(lambda parts=parts: modality_cosine(parts[0], parts[2]), 9))
        slope = math.log(times[-1] / times[0]) / math.log(sizes[-1] / sizes[0])
        yield {"what": what, "sizes": list(sizes), "seconds": [round(t, 5) for t in times], "exponent": slope}


def to_tf32(values: Tensor) -> Tensor:
    """Float32 rounded to TF32's 10 bits, to the nearest even, which a GPU does by itself."""
    bits = values.view(torch.int32)
    return ((bits + 0xFFF + (bits >> 13 & 1)) & ~0x1FFF).view(torch.float32)


def precision(samples: int = 8) -> Iterator[dict[str, Any]]:
    """Sets picked with rounded products beside those of float64, in agreement and in time."""
    for d in (1024, 4096):
        data = [sample(TOKENS, d, seed) for seed in range(samples)]
        reference = [picked(in_float64(*one)) for one in data]
        ways = {
            "float32 (exact)": lambda x: (x, "exact"),
            "tf32 (rounding emulated)": lambda x: (to_tf32(x), "exact"),
            "bf16": lambda x: (x, "bf16"),
        }
        for name, way in ways.items():
            sets = []
            for outputs, attention, modality in data:
                rounded, option = way(outputs)
                sets.append(picked(select_representative(rounded, attention, modality, Picking(precision=option))))
            overlaps = [overlap(a, b) for a, b in zip(sets, reference, strict=True)]
            rounded, option = way(data[0][0])
            spent = seconds(lambda rounded=rounded, option=option: cosine_gram(rounded[None], precision=option), 5)
            same = sum(a == b for a, b in zip(sets, reference, strict=True))
            yield {
                "precision": name,
                "width": d,
                "same sets": f"{same} of {samples}",
                "mean overlap": sum(overlaps) / samples,
                "Gram seconds": "" if "emulated" in name else spent,
            }


def in_float64(outputs: Tensor, attention: Tensor, modality: Tensor) -> Tensor:
    picks = literal_amia(outputs.double(), attention.double(), modality == 1)
    return torch.zeros(len(outputs), dtype=torch.bool).index_fill_(0, torch.tensor(picks), True)


def main() -> None:
    kinds = [(d, dtype) for dtype in (torch.float32, torch.bfloat16) for d in (1024, 4096)]
    rows = [row for d, dtype in kinds for row in amia_rows(d, dtype)]
    save("amia", rows)
    save("amia_per_pick", list(marginal(rows)))
    save("das", list(das_rows()))
    save("growth_ops", list(growth()))
    save("precision", list(precision()))


if __name__ == "__main__":
    main()
