"""Prunes two blocks of Qwen3-VL-30B-A3B, random weights in its exact shapes: seconds of each walk.

    OMP_NUM_THREADS=1 python perf/memory.py python perf/experts_bed.py --method wanda --out runs/experts

The bed (4.7 GB) is made in $TAMP_CACHE on first use. It has no processor, so samples are made here: a picture of 1,024
tokens and 64 of text each.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from measure import machine
from torch import Tensor

import tamp_lightning
from tamp_lightning.checkpoint.reader import read_json
from tamp_lightning.testbeds.checkpoints import resolve

BED = "shape-qwen3-vl-30b-a3b"
PLAIN: dict[str, Any] = {"tokens": "all", "allocation": "uniform"}
METHODS: dict[str, dict[str, Any]] = {"wanda": PLAIN, "tamp": {}}
GRID, TEXT = 64, 64
"""Patches along each side of a picture, of which four are one token, and tokens of text."""


def sample(folder: Path, seed: int) -> dict[str, Tensor]:
    """One sample as the processor of Qwen3-VL lays it out: start, picture, end, text."""
    config = read_json(folder / "config.json")
    vision, generator = config["vision_config"], torch.Generator().manual_seed(seed)
    width = vision["in_channels"] * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    tokens = GRID**2 // vision["spatial_merge_size"] ** 2
    picture = [config["vision_start_token_id"], *[config["image_token_id"]] * tokens, config["vision_end_token_id"]]
    words = torch.randint(1000, 100_000, (TEXT,), generator=generator).tolist()
    ids = torch.tensor([[*picture, *words]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == config["image_token_id"]).long(),
        "pixel_values": torch.randn(GRID**2, width, generator=generator),
        "image_grid_thw": torch.tensor([[1, GRID, GRID]]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=METHODS, default="wanda")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    folder = resolve(BED)
    batches = [sample(folder, seed) for seed in range(args.samples)]
    start = time.process_time()
    done = tamp_lightning.prune(folder, batches, method=METHODS[args.method], out=args.out, progress=False)
    found = {"method": args.method, "samples": args.samples, "sparsity": done.sparsity, "seconds": done.seconds}
    found["processor_seconds"] = time.process_time() - start
    print(json.dumps(found | machine(), indent=1), flush=True)


if __name__ == "__main__":
    main()
