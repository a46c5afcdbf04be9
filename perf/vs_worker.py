"""Prunes one text model with one tool and prints seconds and peak memory; `vs_llmcompressor.py` calls it.

Runs in the virtual environment of either tool, and so imports nothing of the other.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, PreTrainedModel


def ours(model: PreTrainedModel, tokens: torch.Tensor, solver: str, pattern: str) -> float:
    """tamp_lightning.prune, in memory; seconds of the call."""
    from tamp_lightning import prune
    from tamp_lightning.cli.run import quieten

    quieten()
    unstructured = "matrix" if solver == "sparsegpt" else "row"
    method = {"sparsity": 0.5, "tokens": "all", "allocation": "uniform", "solver": solver}
    method["pattern"] = unstructured if pattern == "none" else pattern
    batches = [{"input_ids": part} for part in tokens.split(1)]
    start = time.perf_counter()
    prune(model, batches, method=method, progress=False)
    return time.perf_counter() - start


def theirs(model: PreTrainedModel, tokens: torch.Tensor, solver: str, pattern: str, folder: Path) -> float:
    """llmcompressor.oneshot, in memory, with its defaults and the head left alone; seconds of the call."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.pruning.sparsegpt import SparseGPTModifier
    from llmcompressor.modifiers.pruning.wanda import WandaPruningModifier
    from transformers import AutoTokenizer

    modifier = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}[solver]
    rows = {"input_ids": tokens.tolist(), "attention_mask": torch.ones_like(tokens).tolist()}
    start = time.perf_counter()
    oneshot(
        model=model,
        tokenizer=AutoTokenizer.from_pretrained(folder),
        dataset=Dataset.from_dict(rows),
        recipe=[
            modifier(
                sparsity=0.5,
                mask_structure="0:0" if pattern == "none" else pattern,
                targets=["Linear"],
                ignore=["re:.*lm_head"],
            )
        ],
        num_calibration_samples=len(tokens),
        max_seq_length=tokens.shape[1],
        shuffle_calibration_samples=False,
    )
    return time.perf_counter() - start


def peak_bytes() -> int:
    """Largest resident size so far; `getrusage` would count the process that started this one as well."""
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(rows["VmHWM"].split()[0]) * 1024


def main() -> None:
    tool, solver, pattern, folder, out = sys.argv[1:]
    tokens = load_file(Path(folder) / "tokens.safetensors")["calibration"]
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if torch.cuda.is_available():
        model = model.cuda()
    loaded = peak_bytes()
    if tool == "llm-compressor":
        seconds = theirs(model, tokens, solver, pattern, Path(folder))
    else:
        seconds = ours(model, tokens, solver, pattern)
    peak = peak_bytes()
    model.cpu().save_pretrained(out)
    found = {"seconds": seconds, "peak_bytes": peak, "loaded_bytes": loaded}
    if torch.cuda.is_available():
        found["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
    Path(out, "measured.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
