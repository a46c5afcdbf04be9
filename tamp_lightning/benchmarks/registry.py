"""All benchmarks by name."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from tamp_lightning.benchmarks import pictures, prompts, rules, sounds, videos
from tamp_lightning.benchmarks.base import Benchmark
from tamp_lightning.errors import InputError
from tamp_lightning.registry import Registry

BENCHMARKS: Registry[Benchmark] = Registry("benchmark", "tamp_lightning.benchmarks")
"""Others add theirs with `BENCHMARKS.add(benchmark.name, benchmark)`, or as entry points of this group."""
for _benchmark in (*pictures.BENCHMARKS, *videos.BENCHMARKS, *sounds.BENCHMARKS):
    BENCHMARKS.add(_benchmark.name, _benchmark)
BEDS = ("easy_vqa", "easy_vqa_forms", "skills", "clips")


def check_names(names: list[str]) -> None:
    """Refuse names that are no benchmark.

    Raises:
        InputError: names it, the nearest and what is allowed.
    """
    known = [*BEDS, *BENCHMARKS]
    if not names:
        raise InputError(f"benchmarks is empty; choose from {', '.join(known)}")
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise InputError(f"benchmarks has {name!r}, expected {', '.join(known)}{hint}")
    if len(set(names)) < len(names):
        raise InputError(f"benchmarks names one twice: {', '.join(names)}")


def question_alone(benchmark: Benchmark) -> Benchmark:
    """The benchmark with nothing but the question in its prompt: neither options nor a request for a letter or word.

    For models that were not trained to follow such requests. By likelihood the options' texts are compared; a
    generated reply has to name its option by the rules of the benchmark, and some rules know letters only.
    """
    continuations: dict[Any, Any] = {rules.letters: rules.option_texts, rules.yes_or_no: rules.lower_yes_or_no}
    return replace(
        benchmark,
        about=f"{benchmark.about}; the question alone as prompt",
        prompt=prompts.bare,
        continuations=continuations.get(benchmark.candidates) if benchmark.candidates else None,
    )
