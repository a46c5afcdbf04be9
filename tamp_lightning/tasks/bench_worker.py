"""One model of `tamp bench` in a process of its own, so that its memory is counted alone."""

from __future__ import annotations

import time
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from tamp_lightning.checkpoint.skeleton import model_class
from tamp_lightning.export.quantizer import SEMI_STRUCTURED, BitmaskConfig
from tamp_lightning.kernels.linear import held_by
from tamp_lightning.testbeds.checkpoints import resolve

COMPRESSED, DENSE, FLOAT32, TWO_OF_FOUR = "compressed", "dense", "dense-float32", "2:4"


def serve(pipe: Connection, folder: str, form: str, device: str, threads: int, prompt: int, tokens: int) -> None:
    """Load the model, send what it takes, then time one generation for every message until None comes.

    Sends `(True, facts)`, or `(False, traceback)` and ends.
    """
    try:
        torch.set_num_threads(threads)
        before = _resident(device)
        start = time.perf_counter()
        model = load(Path(folder), form, device).eval()
        if device != "cpu" and form != TWO_OF_FOUR:
            model.to(device)
        facts = {"load_seconds": time.perf_counter() - start, "dtype": str(model.dtype).removeprefix("torch.")}
        held = held_by(model)
        compressed = {"compressed_bytes": held.nbytes, "compressed_weights": held.weights, "values": held.values}
        pipe.send((True, {**facts, "model_bytes": model_bytes(model), **compressed, "linears": held.linears}))
        inputs = prompt_ids(model, prompt).to(device)
        while pipe.recv():
            timing = generate(model, inputs, tokens)
            memory = {"memory": _resident(device) - before, "peak": _resident(device, peak=True) - before}
            pipe.send((True, {**timing, **memory}))
    except Exception:
        pipe.send((False, traceback.format_exc()))


def load(folder: Path, form: str, device: str = "cpu") -> PreTrainedModel:
    """The model of a checkpoint folder in one of the forms; on the CPU, but 2:4 on the `device`."""
    resolve(str(folder))  # transformers learns the model types of this package
    kind = model_class(AutoConfig.from_pretrained(folder))
    if form in (DENSE, FLOAT32):
        return kind.from_pretrained(folder, dtype=torch.float32 if form == FLOAT32 else "auto")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You passed `quantization_config`")
        if form == COMPRESSED:
            return kind.from_pretrained(folder, dtype="auto", quantization_config=BitmaskConfig(keep_compressed=True))
        config = BitmaskConfig(runtime=SEMI_STRUCTURED)
        return kind.from_pretrained(folder, dtype=torch.bfloat16, device_map=device, quantization_config=config)


def model_bytes(model: PreTrainedModel) -> int:
    """Bytes of all parameters and buffers, tied ones once."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def prompt_ids(model: PreTrainedModel, length: int) -> Tensor:
    """Text tokens [1, length] without one that stands for a picture or ends the text."""
    config = model.config.to_dict()
    text = model.config.get_text_config()
    special = set(_token_ids(config)) | set(_token_ids(text.to_dict()))
    allowed = [i for i in range(min(text.vocab_size, 4096)) if i not in special]
    choice = torch.randint(len(allowed), (length,), generator=torch.Generator().manual_seed(0))
    return torch.tensor(allowed)[choice].unsqueeze(0)


def _token_ids(config: dict[str, Any]) -> list[int]:
    named = [value for key, value in config.items() if key.endswith(("_token_id", "_token_index"))]
    return [i for value in named for i in (value if isinstance(value, list) else [value]) if isinstance(i, int)]


class _Clock(LogitsProcessor):
    """Notes when the logits of each new token are there."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Change nothing."""
        if scores.is_cuda:
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())
        return scores


@torch.inference_mode()
def generate(model: PreTrainedModel, inputs: Tensor, tokens: int) -> dict[str, float]:
    """Seconds until the first token, and tokens per second after it, as `generate` takes them greedily."""
    clock = _Clock()
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": tokens + 1, "min_new_tokens": tokens + 1}
    start = time.perf_counter()
    model.generate(  # type: ignore[operator]
        inputs,
        attention_mask=torch.ones_like(inputs),
        logits_processor=LogitsProcessorList([clock]),
        pad_token_id=0,
        **options,
    )
    return {
        "prefill_seconds": clock.times[0] - start,
        "tokens_per_second": (len(clock.times) - 1) / (clock.times[-1] - clock.times[0]),
    }


def _resident(device: str, peak: bool = False) -> int:
    """Bytes that this process holds, mapped files that were read included; on a GPU what its allocator gave."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    name = "VmHWM" if peak else "VmRSS"
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except FileNotFoundError:  # not Linux
        return 0
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))
