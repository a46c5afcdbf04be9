"""Every family: what is walked is what the model computes, the plan is met, disk equals memory, what is saved loads."""

from collections.abc import Iterator
from pathlib import Path

import lightning as L
import pytest
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.selection import Selection
from tamp_lightning.passes.pruned import Pruned
from tamp_lightning.passes.trainer import prune_stream
from tamp_lightning.stream import DiskStream, MemoryStream, Stream

from ..conftest import hashes
from .families import FAMILIES, KINDS, NUMBERS, Family
from .newer import NEWER

BLOCKS = 4


class LastBlock(L.Callback):
    """Advances every cached batch through the last block, which is pruned by then."""

    def __init__(self) -> None:
        self.hidden: list[Tensor] = []
        self.modality: list[Tensor] = []

    def on_train_epoch_end(self, trainer, module):
        if module.walk == "prune" and module.index == BLOCKS - 1:
            for batch in module.cache:
                module.current = batch
                self.hidden.append(module.block(batch.hidden, **batch.kwargs))
                self.modality.append(batch.modality)


def prune(stream: Stream, family: Family, *watchers: L.Callback) -> Pruned:
    data = CalibrationData.from_batches(family.batches())
    method = Method(**family.method)
    return prune_stream(stream, data, method, progress=False, accelerator="cpu", callbacks=list(watchers))


@torch.no_grad()
def behind_blocks(model: PreTrainedModel, blocks: str, batch: dict[str, Tensor]) -> Tensor:
    seen: list[Tensor] = []
    last = model.get_submodule(blocks)[-1]
    handle = last.register_forward_hook(lambda _m, _a, output: seen.append(output))
    model(**batch, use_cache=False)
    handle.remove()
    return seen[0]


@torch.no_grad()
def logits(model: PreTrainedModel, family: Family) -> Iterator[Tensor]:
    for batch in family.batches():
        yield model(**batch, use_cache=False).logits


@pytest.mark.parametrize("name", FAMILIES | NEWER)
def test_family(name: str, tmp_path: Path) -> None:
    family = (FAMILIES | NEWER)[name]
    model, last = family.make(), LastBlock()
    stream = MemoryStream(model, Selection(exclude=family.exclude))
    pruned = prune(stream, family, last)
    # The chain of cached hidden states is the pruned model's own forward.
    for batch, hidden, modality in zip(family.batches(), last.hidden, last.modality, strict=True):
        own, valid = behind_blocks(model, stream.facts.blocks, batch), batch["attention_mask"].bool()
        if bool(valid.all()):
            assert torch.equal(hidden, own)
        torch.testing.assert_close(hidden[valid], own[valid], rtol=1e-4, atol=1e-4)
        for kind, token in KINDS.items():
            assert torch.equal(modality == NUMBERS[kind], batch["input_ids"] == token)
    # The plan is met: half of what may be pruned is zero, all else is as it was.
    assert len(pruned.linears) == family.linears
    assert pruned.sparsity == pytest.approx(0.5, abs=1e-3)
    dense = dict(family.make().named_parameters())
    for full, row in pruned.linears.items():
        assert int(model.get_parameter(f"{full}.weight").count_nonzero()) <= row["kept"]
    for full, value in model.named_parameters():
        kept = (
            value != 0 if full.removesuffix(".weight") in pruned.linears else torch.ones_like(value, dtype=torch.bool)
        )
        assert torch.equal(value[kept], dense[full][kept])
    # Saved and loaded again it computes the same; pruned from disk it is the same.
    model.save_pretrained(tmp_path / "pruned")
    family.make().save_pretrained(tmp_path / "dense")
    stream = DiskStream(tmp_path / "dense", tmp_path / "out", selection=Selection(exclude=family.exclude))
    from_disk = prune(stream, family)
    assert hashes(from_disk) == hashes(pruned)
    for folder in ("pruned", "out"):
        again = getattr(transformers, family.model).from_pretrained(tmp_path / folder).eval()
        for own, loaded in zip(logits(model, family), logits(again, family), strict=True):
            torch.testing.assert_close(loaded, own, rtol=0, atol=family.tolerance)
