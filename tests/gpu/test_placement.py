"""No tensor is forgotten on the other device, and no batch waits for it, without a GPU at hand."""

from collections import Counter

import lightning as L
import pytest
import torch

from tamp_lightning.methods.method import Method
from tamp_lightning.methods.options import Correction
from tamp_lightning.methods.selection import Selection
from tamp_lightning.methods.tokens import Amia
from tamp_lightning.methods.towers import Towers
from tamp_lightning.ops.bits import unpack_bits
from tamp_lightning.ops.picking import PICKS_PER_CHECK
from tamp_lightning.passes.contract import BlockPass
from tamp_lightning.passes.trainer import prune_stream
from tamp_lightning.stream import MemoryStream

from ..conftest import TAMP, WANDA, calibration, toys
from ..stream.conftest import make_llava
from .conftest import share_of_differing
from .pretend import GPU, OnGpu, placed, pretended, waits
from .test_runs import KINDS, PLAIN, pruned_masks

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU shows it itself")
LONGEST = 25
"""Tokens of a sample."""
PICKING = -(-LONGEST // PICKS_PER_CHECK)
"""Looks at the stopping rule of AMIA, one wait each: the loop has to know when it ends."""
GROUPS = 4
"""Of linears that read one input, in a block."""
BY_GROUP = 1
"""Waits of a Hessian: tokens that count are gathered, and how many there are decides the size of the product."""
RANKING = 1
"""Look of ATV at the drifts before it ranks them: none may be NaN."""
METHODS = {
    "wanda": (WANDA, 0),
    "magnitude": (Method(**PLAIN, solver="magnitude"), 0),
    "2:4": (Method(**PLAIN, pattern="2:4"), 0),
    "tamp": (TAMP, PICKING),
    "per block": (Method(amia=Amia(per="block", max_tokens=12)), PICKING),
    "atv": (Method(tokens="atv", allocation="uniform"), RANKING),
    "owl": (Method(tokens="text_only", allocation="owl", solver="ria"), 0),
    "alpha": (Method(tokens="all", allocation="alpha"), 0),
    "sparsegpt": (Method(**PLAIN, solver="sparsegpt"), GROUPS * BY_GROUP),
    "admm": (Method(tokens="atv", allocation="uniform", solver="admm"), RANKING + 2 * GROUPS * BY_GROUP),
    "corrected": (Method(**PLAIN, solver="sparsegpt", correction=Correction(0.5)), 3 * GROUPS * BY_GROUP),
    "one shot": (Method(mode="one_shot", amia=Amia(per="input")), PICKING),
}


class Counting(L.Callback):
    """What waited in each batch, where hidden states come from the cache and not from the processor."""

    def __init__(self) -> None:
        self.batches: list[Counter[tuple[str, str]]] = []

    def on_train_batch_start(self, trainer, pl_module: BlockPass, batch, batch_idx: int) -> None:
        waits.clear()

    def on_train_batch_end(self, trainer, pl_module: BlockPass, outputs, batch, batch_idx: int) -> None:
        if pl_module.index > 0:
            self.batches.append(Counter(waits))


def test_what_a_gpu_would_refuse_is_refused():
    with pretended():
        here, there = torch.ones(3), OnGpu(torch.ones(3))
        assert there.is_cuda
        assert there.device == GPU
        assert (there * 2 + torch.tensor(1.0)).device == GPU
        assert torch.arange(3, device=there.device).device == GPU
        for mixed in (lambda: here + there, lambda: there @ here, lambda: torch.where(there > 0, here, there)):
            with pytest.raises(RuntimeError, match="two devices"):
                mixed()
        with pytest.raises(TypeError, match="to numpy"):
            there.numpy()
        waits.clear()
        assert there.cpu().numpy().tolist() == [1, 1, 1]
        assert there.tolist() == here.tolist()
        assert bool((there > 0).all())
        assert float(there[0]) == 1
        assert there[there > 0].shape == (3,)
        kinds = [kind for kind, _ in waits]
        assert kinds == ["copy to the CPU", "tolist", "item", "item", "index"]
        there.mul_(2)
        assert there.cpu().tolist() == [2, 2, 2]


@pytest.mark.parametrize("name", METHODS)
def test_all_tensors_of_a_run_are_on_its_device_and_few_batches_wait(name):
    method, allowed = METHODS[name]
    counting = Counting()
    stream = MemoryStream(make_llava())
    with pretended() as trainer:
        placed(stream.model)
        pruned = prune_stream(
            stream, calibration(toys(KINDS), 2), method, progress=False, callbacks=[counting], **trainer
        )
        own = {k: unpack_bits(bits, pruned.linears[k]["shape"]) for k, bits in pruned.masks.items()}
    expected = pruned_masks(make_llava(), method, 2, accelerator="cpu")
    assert share_of_differing(expected, own) <= 0.005
    assert len(counting.batches) > 0 or not method.reads_activations
    for batch in counting.batches:
        assert sum(batch.values()) <= allowed, batch


def test_towers_are_pruned_on_the_device():
    stream = MemoryStream(make_llava(), Selection(towers=Towers(sparsity=0.3)))
    with pretended() as trainer:
        placed(stream.model)
        pruned = prune_stream(stream, calibration(toys(KINDS), 2), WANDA, progress=False, **trainer)
        own = {
            k: unpack_bits(bits, pruned.towers[k]["shape"]) for k, bits in pruned.masks.items() if k in pruned.towers
        }
    expected = pruned_masks(make_llava(), WANDA, 2, Towers(sparsity=0.3), accelerator="cpu")
    assert share_of_differing({k: expected[k] for k in own}, own) <= 0.005
