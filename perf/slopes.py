"""Slopes of time and memory: what a forward operation, a weight and a state cost here, and what they foretell.

    python perf/slopes.py

Rates are fitted to three random Llama models, then tamp_lightning.tasks.forecast is asked about two others, which are
measured as well. Seconds are of the processor (`time.process_time`), one thread, so that other work on the machine
counts little. Writes perf/results/slopes.json.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measure import save
from transformers import LlamaConfig, LlamaForCausalLM

from tamp_lightning.checkpoint.facts import find_facts
from tamp_lightning.cli.run import quieten
from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.methods.method import Method
from tamp_lightning.passes.trainer import prune_stream
from tamp_lightning.stream.disk import DiskStream
from tamp_lightning.tasks.forecast import Machine, Shape, _operations, shape_of

TOKENS, BATCH = 128, 4
WANDA = Method(tokens="all", allocation="uniform")
FITTED = [(4, 256, 16), (4, 256, 48), (8, 256, 16), (4, 512, 16)]
"""Blocks, width, samples."""
FORETOLD = [(12, 384, 32), (6, 640, 24)]


def model_of(blocks: int, width: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": blocks}
    heads = {"num_attention_heads": width // 32, "num_key_value_heads": width // 64}
    return LlamaForCausalLM(LlamaConfig(vocab_size=1000, **sizes, **heads)).eval()


def measured(blocks: int, width: int, samples: int) -> tuple[float, Shape]:
    """Processor seconds of a Wanda run from checkpoint to checkpoint, and the model's shape."""
    with tempfile.TemporaryDirectory() as scratch:
        model = model_of(blocks, width)
        model.save_pretrained(Path(scratch) / "source")
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(0, 1000, (samples, TOKENS), generator=generator)
        data = CalibrationData.from_batches([{"input_ids": part} for part in ids.split(BATCH)])
        start = time.process_time()
        stream = DiskStream(Path(scratch) / "source", Path(scratch) / "out")
        prune_stream(stream, data, WANDA, progress=False, accelerator="cpu")
        return time.process_time() - start, shape_of(model, find_facts(model))


def row(blocks: int, width: int, samples: int) -> dict[str, Any]:
    seconds, shape = min((measured(blocks, width, samples) for _ in range(2)), key=lambda found: found[0])
    operations = 2 * _operations(shape, Machine(samples=samples, tokens=TOKENS))
    return {
        "blocks": blocks, "width": width, "samples": samples, "seconds": seconds,
        "operations": operations, "weights": shape.weights, "batches": blocks * samples // BATCH,
    }  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    quieten()
    measured(2, 128, 8)  # what is imported and made once
    fitted = [row(*sizes) for sizes in FITTED]
    names = ("operations", "weights", "batches")
    columns = torch.tensor([[float(one[name]) for name in (*names,)] + [1.0] for one in fitted], dtype=torch.float64)
    scale = columns.amax(0)
    wanted = torch.tensor([one["seconds"] for one in fitted], dtype=torch.float64)
    slopes = torch.linalg.lstsq(columns / scale, wanted[:, None]).solution[:, 0] / scale
    rows = fitted + [row(*sizes) for sizes in FORETOLD]
    for one in rows:
        values = torch.tensor([float(one[name]) for name in names] + [1.0], dtype=torch.float64)
        one["foretold"] = float(values @ slopes)
        one["ratio"] = one["foretold"] / one["seconds"]
    found = dict(zip(("s/operation", "s/weight", "s/batch and block", "s/run"), slopes.tolist(), strict=True))
    save("slopes", rows, slopes=found, tflops=1e-12 / found["s/operation"])


if __name__ == "__main__":
    main()
