"""Decoding from end to end at LLaVA-NeXT-8B's width: dense and with compressed linears, side by side.

    python perf/decode_8b.py --blocks 16 --sparsity 0.5 --threads 2

A model of random weights with so many of the 32 blocks is written with zeros at random places of its decoder's linears,
exported without them, and given to `tamp bench`. 16 blocks take 10 GB of memory dense, and 25 GB of disk while it runs.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import LlavaNextForConditionalGeneration

from tamp_lightning.cli.run import quieten
from tamp_lightning.export.job import Source, to_bitmask
from tamp_lightning.files import atomic_write
from tamp_lightning.tasks.bench import bench
from tamp_lightning.testbeds.shapes import empty_model, llava_next_8b_model, write_random

IMAGE_TOKEN = 128_255
SHARD_BYTES = 1 << 30


def write_sparse(folder: Path, blocks: int, sparsity: float) -> None:
    """A checkpoint of random weights, a share of those in the decoder's linears zero."""
    config = copy.deepcopy(llava_next_8b_model(IMAGE_TOKEN).config)
    config.text_config.num_hidden_layers = blocks
    write_random(empty_model(LlavaNextForConditionalGeneration, config), folder, SHARD_BYTES)
    generator = torch.Generator().manual_seed(0)
    for path in sorted(folder.glob("*.safetensors")):
        tensors = load_file(path)
        for name, tensor in tensors.items():
            if "language_model" in name and "_proj." in name:
                tensor.masked_fill_(
                    torch.rand(tensor.shape, generator=generator) < sparsity, 0
                )  # a product would be -0
        with atomic_write(path) as whole:  # what was read is still mapped
            save_file(tensors, whole, metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--scratch", type=Path, help="where the checkpoints lie for a while (default: the system's)")
    parser.add_argument("--out", type=Path, default=Path("perf/results/decode_8b.json"))
    options, console = parser.parse_args(), Console(width=80)
    quieten()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        dense, small = Path(scratch) / "dense", Path(scratch) / "small"
        write_sparse(dense, options.blocks, options.sparsity)
        to_bitmask(Source.find(dense), small, lambda *_: {})
        bench(["--threads", str(options.threads), "--tokens", "16", "--out", str(options.out), str(small)], console)


if __name__ == "__main__":
    main()
