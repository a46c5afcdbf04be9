"""What the callbacks collect in one pass over a block."""

import lightning as L
import numpy as np
import pytest
import torch

from tamp_lightning.methods.method import Method
from tamp_lightning.ops.bits import mask_sha256, pack_bits
from tamp_lightning.passes.callbacks import progress
from tamp_lightning.passes.callbacks.progress import title
from tamp_lightning.passes.callbacks.tokens import TokenCollector
from tamp_lightning.passes.module import TampModule
from tamp_lightning.passes.trainer import walking_trainer
from tamp_lightning.stream import MemoryStream

from ...conftest import IMAGE_ID, TAMP, WANDA, as_batch, calibration, run, toys
from ...stream.conftest import make_llama, make_llava


class Sees(L.Callback):
    """Notes what the collector holds after every batch."""

    def __init__(self, collector):
        self.collector, self.shapes, self.titles, self.shared = collector, [], [], []

    def on_train_batch_end(self, trainer, module, *_):
        tokens = {linear.name: own for linear, own in self.collector.latest().items()}
        self.shapes.append({name: (tuple(t.inputs.shape), tuple(t.outputs.shape)) for name, t in tokens.items()})
        self.titles.append(title(module))
        q, k, v, o = (tokens[f"self_attn.{name}_proj"].inputs for name in "qkvo")
        self.shared.append((q is k and k is v, q is o))


def test_collector_sees_the_current_blocks_linears_and_forgets_them():
    collector = TokenCollector()
    sees = Sees(collector)
    samples = toys("tt")
    trainer = walking_trainer([collector, sees], accelerator="cpu", enable_progress_bar=False)
    trainer.fit(TampModule(MemoryStream(make_llama()), WANDA), datamodule=calibration(samples, 1))
    assert len(sees.shapes) == 3 * 2
    for k, shapes in enumerate(sees.shapes):
        n = len(samples[k % 2].ids)
        assert len(shapes) == 7
        assert shapes["self_attn.k_proj"] == ((1, n, 32), (1, n, 16))
        assert shapes["mlp.down_proj"] == ((1, n, 48), (1, n, 32))
    assert sees.titles == [f"prune {k}/3" for k in (1, 1, 2, 2, 3, 3)]
    assert set(sees.shared) == {(True, False)}  # q, k and v hold one tensor: it is squared once
    assert not collector.latest()


class CountsCalls(L.Callback):
    """How often each linear of the last block really multiplied in the last pass."""

    def __init__(self, block):
        self.now = {}
        self.forwards = {name: self.counted(name, linear.forward) for name, linear in linears(block)}
        for name, linear in linears(block):
            linear.forward = self.forwards[name]

    def counted(self, name, forward):
        def call(inputs):
            self.now[name] = self.now.get(name, 0) + 1
            return forward(inputs)

        return call

    def on_train_epoch_end(self, trainer, module):
        self.calls, self.now = self.now, {}


def linears(block):
    return [(name, module) for name, module in block.named_modules() if name.endswith("_proj")]


@pytest.mark.parametrize(
    ("method", "spared"),
    [
        (WANDA, True),
        (Method(tokens="text_only", allocation="uniform", solver="sparsegpt"), True),
        (Method(tokens="atv", allocation="uniform"), False),
        (TAMP, False),
        (Method(tokens="all", allocation="uniform", mode="one_shot"), False),
    ],
)
def test_the_last_linear_rests_where_nobody_reads_outputs(method, spared):
    model = make_llava()
    block = model.get_decoder().layers[-1]
    counts = CountsCalls(block)
    run(model, calibration(toys("ptpt"), 1), method, counts)
    assert counts.calls["mlp.up_proj"] == 4
    assert counts.calls["mlp.down_proj"] == (1 if spared else 4)
    assert all(linear.forward is counts.forwards[name] for name, linear in linears(block))


def test_token_share_is_counted_over_all_batches():
    samples = toys("ptp")
    pruned = run(make_llava(), calibration(samples, 2), WANDA)
    total = sum(len(s.ids) for s in samples)
    image = sum(int((s.ids == IMAGE_ID).sum()) for s in samples)
    for name, share in pruned.token_share.items():
        assert share == pytest.approx([1 - image / total, image / total, 0, 0])
        assert pruned.linears[name]["tokens_per_sample"] == pytest.approx(total / 3)


def test_scores_rest_on_the_pairs_that_samples_have():
    pruned = run(make_llava(), calibration(toys("tt"), 2), TAMP)
    assert len(pruned.scores) == 21
    for cosine in pruned.cosines.values():
        assert cosine.isnan().sum() == 15  # text with text is there, nothing else
    mixed = run(make_llava(), calibration(toys("tpt"), 1), TAMP)
    for name, cosine in mixed.cosines.items():
        assert cosine.isnan().sum() == 12
        pairs = cosine[:2, :2][torch.triu(torch.ones(2, 2, dtype=torch.bool))]
        assert mixed.scores[name] == pytest.approx(1 - float(pairs.mean()))


def test_methods_that_need_no_measuring_have_no_scores():
    pruned = run(make_llava(), calibration(toys("p"), 1), Method(allocation="constant"))
    assert pruned.scores == pruned.cosines == {}
    assert set(pruned.seconds) == {"prune"}


@pytest.mark.parametrize("shape", [(3, 5), (2, 8), (1, 1)])
def test_masks_are_packed_as_numpy_packs_them(shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.4
    assert pack_bits(mask).tolist() == np.packbits(mask.numpy().flatten()).tolist()
    other = mask.clone()
    other[0, 0] = ~other[0, 0]
    assert mask_sha256(mask) == mask_sha256(mask.clone()) != mask_sha256(other)


def test_masks_by_hand():
    mask = torch.tensor([[True, False, True], [False, False, True], [True, True, True]])
    assert pack_bits(mask).tolist() == [0b10100111, 0b10000000]


def test_pruning_without_a_budget_is_an_error():
    from tamp_lightning.passes.callbacks.pruning import PruningCallback
    from tamp_lightning.passes.callbacks.statistics import StatisticsCollector

    collector = TokenCollector()
    statistics = StatisticsCollector(WANDA, collector)
    callbacks = [collector, statistics, PruningCallback(WANDA, statistics)]
    trainer = walking_trainer(callbacks, accelerator="cpu", enable_progress_bar=False)
    with pytest.raises(RuntimeError, match="AllocationCallback has to stand before"):
        trainer.fit(TampModule(MemoryStream(make_llama()), WANDA), datamodule=calibration(toys("t"), 1))


def test_the_bar_names_walk_and_block(capsys, monkeypatch):
    from tamp_lightning import prune

    monkeypatch.setattr(progress, "is_live", lambda: True)
    prune(make_llama(), [as_batch(toys("tt"))], progress=True, accelerator="cpu")
    shown = capsys.readouterr().out
    assert "prune 3/3" in shown
