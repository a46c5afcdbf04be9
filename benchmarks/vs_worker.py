"""Prunes one text model with one tool and prints seconds and peak memory; `vs_llmcompressor.py` calls it.

Runs in the virtual environment of either tool, and so imports nothing of the other.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, PreTrainedModel

BATCH = 8


def ours(model: PreTrainedModel, tokens: torch.Tensor, solver: str, pattern: str, batch: int) -> None:
    """tamp_lightning.prune, in memory."""
    from tamp_lightning import prune
    from tamp_lightning.run import quieten

    quieten()
    unstructured = "matrix" if solver == "sparsegpt" else "row"
    method = {"sparsity": 0.5, "tokens": "all", "allocation": "uniform", "solver": solver}
    method["pattern"] = unstructured if pattern == "none" else pattern
    batches = [{"input_ids": part} for part in tokens.split(batch)]
    prune(model, batches, method=method, progress=False)


def theirs(model: PreTrainedModel, tokens: torch.Tensor, solver: str, pattern: str, folder: Path) -> None:
    """llmcompressor.oneshot, in memory, with its defaults and the head left alone."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.pruning.sparsegpt import SparseGPTModifier
    from llmcompressor.modifiers.pruning.wanda import WandaPruningModifier
    from transformers import AutoTokenizer

    modifier = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}[solver]
    rows = {"input_ids": tokens.tolist(), "attention_mask": torch.ones_like(tokens).tolist()}
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


def main() -> None:
    tool, solver, pattern, folder, out = sys.argv[1:]
    tokens = load_file(Path(folder) / "tokens.safetensors")["calibration"]
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if torch.cuda.is_available():
        model = model.cuda()
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    if tool == "llm-compressor":
        theirs(model, tokens, solver, pattern, Path(folder))
    else:
        ours(model, tokens, solver, pattern, BATCH)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model.cpu().save_pretrained(out)
    found = {"seconds": seconds, "peak_bytes": peak * 1024, "loaded_bytes": loaded * 1024}
    if torch.cuda.is_available():
        found["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
    Path(out, "measured.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
