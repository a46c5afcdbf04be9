"""Prunes tiny models in memory by every method that processes can share; run by test_processes as a program."""

import json
import sys
import warnings
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from transformers import PreTrainedModel

from tamp_lightning.cli.run import quieten
from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.methods.allocation import Ecoflap
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.options import Correction, Refit
from tamp_lightning.methods.tilt import Diversity
from tamp_lightning.methods.tokens import ModalityMix
from tamp_lightning.passes.trainer import prune_stream
from tamp_lightning.stream import MemoryStream

from ..conftest import calibration, toys
from ..stream.conftest import make_llava
from ..zoo.experts import WITH_EXPERTS

METHODS = {
    "wanda": Method(tokens="all", allocation="uniform"),
    "tamp": Method(),
    "sparsegpt": Method(tokens="all", allocation="uniform", solver="sparsegpt"),
    "sparsegpt on chosen tokens": Method(solver="sparsegpt"),
    "atv": Method(tokens="atv", allocation="uniform", solver="admm"),
    "modality mix": Method(
        tokens="modality_mix", allocation="owl", solver="sparsegpt", modality_mix=ModalityMix((0.0, 0.3, 1.0), 0.5)
    ),
    "ecoflap": Method(allocation="ecoflap", tokens="text_only", ecoflap=Ecoflap(samples=3)),
    "alpha": Method(tokens="all", allocation="alpha", solver="ria"),
    "dlp": Method(tokens="all", allocation="dlp", solver="magnitude"),
    "one shot": Method(mode="one_shot"),
    "corrected": Method(allocation="uniform", solver="sparsegpt", correction=Correction(0.5)),
    "refit": Method(
        allocation="diversity", refit=Refit(steps=5), diversity=Diversity(widths=(0.0, 0.1, -0.1), held_out=0.5)
    ),
}
ON_EXPERTS = ("wanda", "tamp", "sparsegpt", "atv", "dlp", "corrected")
"""Of these, on a mixture of experts too."""
MIXTURE = WITH_EXPERTS["qwen3_vl_moe"]


def cases(processes: int) -> Iterator[tuple[str, Method, int, int]]:
    """Name, method, number of samples, samples per batch; counts that divide and do not, in turn."""
    for number, (name, method) in enumerate(METHODS.items()):
        samples, size = ((5, 1), (4, 1), (5, 2))[(number + processes) % 3]
        yield f"{name} {samples}/{size}", method, samples, size
    yield "sparsegpt 21/1", METHODS["sparsegpt"], 21, 1


def digest(value: torch.Tensor) -> str:
    return sha256(value.numpy().tobytes()).hexdigest()


def outcomes(processes: int, like: int) -> dict[str, Any]:
    """What every case for `like` processes leaves: report, scores, masks and weights."""
    found = {}
    for name, method, samples, size in cases(like):
        data = calibration(toys("tpptp" * 5)[:samples], size)
        found[name] = outcome(make_llava(), data, method, processes)
    lengths = (60, 41, 37, 52, 44)[: 4 + like % 2]
    for name in ON_EXPERTS:
        data = CalibrationData.from_batches([MIXTURE.sample(("image",), length, length) for length in lengths])
        found[f"{name} on experts"] = outcome(MIXTURE.make(), data, METHODS[name], processes)
    return json.loads(json.dumps(found))


def outcome(model: PreTrainedModel, data: CalibrationData, method: Method, processes: int) -> list[Any]:
    """What a run leaves."""
    trainer = {"accelerator": "cpu", "devices": processes}
    pruned = prune_stream(MemoryStream(model), data, method, progress=False, **trainer)
    weights = {key: digest(value) for key, value in model.state_dict().items()}
    masks = {key: digest(bits) for key, bits in pruned.masks.items()}
    return [pruned.linears, pruned.scores, pruned.token_share, masks, weights]


if __name__ == "__main__":
    torch.set_num_threads(1)
    quieten()
    warnings.filterwarnings("ignore", ".*matrices of experts")  # the mixture is tiny, its experts see few tokens
    number = int(sys.argv[2])
    result = outcomes(number, number)
    Path(sys.argv[1], f"{rank_zero_only.rank}.json").write_text(json.dumps(result))
