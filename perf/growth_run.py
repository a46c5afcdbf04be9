"""How the time of a whole TAMP run grows with tokens, blocks, width and samples, on random Llama models in memory.

python perf/growth_run.py
"""

from __future__ import annotations

import math
from typing import Any

import torch
from measure import save
from transformers import LlamaConfig, LlamaForCausalLM

import tamp_lightning
from tamp_lightning.cli.run import quieten

BASE = {"tokens": 256, "blocks": 4, "width": 256, "samples": 16}
RANGES = {"tokens": (256, 512, 1024), "blocks": (4, 8, 16), "width": (256, 512, 1024), "samples": (16, 32, 64)}


def run(tokens: int, blocks: int, width: int, samples: int) -> float:
    """Seconds of the measure and prune walks."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=500,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=blocks,
        num_attention_heads=width // 64,
    )
    model = LlamaForCausalLM(config).bfloat16()
    ids = torch.randint(0, 500, (samples, tokens), generator=torch.Generator().manual_seed(0))
    batches = [{"input_ids": part} for part in ids.split(4)]
    return sum(tamp_lightning.prune(model, batches, progress=False, accelerator="cpu").seconds.values())


def main() -> None:
    quieten()
    rows: list[dict[str, Any]] = []
    run(**BASE)
    for what, sizes in RANGES.items():
        times = [min(run(**{**BASE, what: size}) for _ in range(2)) for size in sizes]
        slope = math.log(times[-1] / times[0]) / math.log(sizes[-1] / sizes[0])
        rows.append({"grows": what, "sizes": list(sizes), "seconds": [round(t, 3) for t in times], "exponent": slope})
    save("growth_run", rows, base=BASE)


if __name__ == "__main__":
    main()
