"""SmolLM2-135M-Instruct pruned by llm-compressor and by this package, turn and turn about, on the same tokens.

    python -m venv peer && peer/bin/pip install torch==2.13.0 && peer/bin/pip install llmcompressor==0.14.0.1
    python perf/vs_llmcompressor.py --peer peer/bin/python

Text alone: 32 x 256 tokens of docstrings of the standard library to calibrate, 16 x 256 of other modules to measure
perplexity, in float32, one sample at a time, which is that tool's default. Seconds are those of the call that prunes,
the model loaded and everything imported; peak memory is the process's until then.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import subprocess
import sys
import sysconfig
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measure import save
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from tamp_lightning.testbeds.smollm2 import load_smollm2

OURS, THEIRS = "tamp-lightning", "llm-compressor"
WAYS = [("wanda", "none"), ("wanda", "2:4"), ("sparsegpt", "none"), ("sparsegpt", "2:4")]
LENGTH, CALIBRATION, HELD_OUT = 256, 32, 16
SHORTEST = 200
"""Docstrings of fewer characters are left out."""


def docstrings(first: str, last: str) -> list[str]:
    """Of the top modules of the standard library whose name begins with a letter from `first` up to `last`."""
    found = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        if not first <= path.name[0] < last:
            continue
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        kinds = (ast.FunctionDef, ast.ClassDef, ast.Module)
        texts = [ast.get_docstring(node) or "" for node in nodes if isinstance(node, kinds)]
        found += [text for text in texts if len(text) > SHORTEST]
    return found


def rows(tokenizer: PreTrainedTokenizerBase, texts: list[str], count: int) -> Tensor:
    """[count, LENGTH] token ids of the texts one after another."""
    ids = tokenizer("\n\n".join(texts))["input_ids"]
    return torch.tensor(ids[: count * LENGTH]).view(count, LENGTH)


def prepare(folder: Path) -> dict[str, Tensor]:
    """Write the model, its tokenizer and the tokens; return the tokens."""
    model, tokenizer = load_smollm2(torch.float32)
    plain = LlamaForCausalLM(model.config).float()
    plain.load_state_dict(model.state_dict())
    plain.config.quantization_config = None
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tokens = {
        "calibration": rows(tokenizer, docstrings("_", "m"), CALIBRATION),
        "held_out": rows(tokenizer, docstrings("m", "~"), HELD_OUT),
    }
    save_file(tokens, folder / "tokens.safetensors")
    return tokens


@torch.no_grad()
def perplexity(model: PreTrainedModel, tokens: Tensor) -> float:
    losses = [float(model(input_ids=part, labels=part).loss) for part in tokens.split(4)]
    return math.exp(sum(losses) / len(losses))


def zeros(model: PreTrainedModel) -> dict[str, Tensor]:
    """Where the weights of the decoder blocks' linears are zero."""
    layers = model.model.layers
    return {n: m.weight == 0 for n, m in layers.named_modules() if isinstance(m, torch.nn.Linear)}


def worst_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest share of a linear's weights that only one of two models has zeroed."""
    return max(float((one[name] ^ other[name]).float().mean()) for name in one)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="Python of an environment that has llmcompressor")
    parser.add_argument("--work", type=Path, default=Path("runs/vs_llmcompressor"))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    source = options.work / "dense"
    tokens = prepare(source)
    pythons = {THEIRS: options.peer, OURS: sys.executable}
    measured: dict[tuple[str, ...], list[dict[str, float]]] = {}
    for _ in range(options.repeats):
        for solver, pattern in WAYS:
            for tool, python in pythons.items():
                key = (tool, solver, pattern)
                measured.setdefault(key, []).append(one_run(python, key, source, options.work / "-".join(key)))
    dense = perplexity(LlamaForCausalLM.from_pretrained(source), tokens["held_out"])
    table = [row for way in WAYS for row in compared(way, measured, options.work, tokens["held_out"])]
    version = subprocess.run(
        [options.peer, "-c", "from importlib.metadata import version; print(version('llmcompressor'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    save("vs_llmcompressor", table, dense_perplexity=dense, llmcompressor=version, repeats=options.repeats)


def one_run(python: str, key: tuple[str, ...], source: Path, out: Path) -> dict[str, float]:
    """Prune in a process of its own."""
    worker = Path(__file__).with_name("vs_worker.py")
    done = subprocess.run([python, worker, *key, source, out], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(key)} failed: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads((out / "measured.json").read_text())
    print(" ".join(key), f"{found['seconds']:.1f} s", flush=True)
    return found


def compared(
    way: tuple[str, str], measured: dict[tuple[str, ...], list[dict[str, float]]], work: Path, held_out: Tensor
) -> list[dict[str, Any]]:
    """A row per tool; the second also says how it differs from the first."""
    table, masks = [], []
    for tool in (THEIRS, OURS):
        runs = measured[tool, *way]
        model = LlamaForCausalLM.from_pretrained(work / "-".join((tool, *way)))
        masks.append(zeros(model))
        table.append(
            {
                "solver": way[0],
                "pattern": way[1],
                "tool": tool,
                "perplexity": perplexity(model, held_out),
                "sparsity": float(torch.cat([m.flatten() for m in masks[-1].values()]).float().mean()),
                "seconds": median(run["seconds"] for run in runs),
                "peak_gb": max(run["peak_bytes"] for run in runs) / 1e9,
            }
        )
    ratios = [
        run[1]["seconds"] / run[0]["seconds"] for run in zip(*(measured[t, *way] for t in (THEIRS, OURS)), strict=True)
    ]
    table[1] |= {"ratio": median(ratios), "worst_difference": worst_difference(*masks)}
    return table


if __name__ == "__main__":
    main()
