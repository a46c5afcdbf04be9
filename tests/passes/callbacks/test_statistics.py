"""What is collected for the solvers, what is shared, and that it goes when its block is done."""

import lightning as L
import pytest
import torch

from tamp_lightning.methods.method import Method
from tamp_lightning.methods.tokens import Amia
from tamp_lightning.ops.hessian import weighted_gram
from tamp_lightning.passes.callbacks.progress import title
from tamp_lightning.passes.callbacks.pruning import PruningCallback
from tamp_lightning.passes.callbacks.statistics import WHOLE, StatisticsCollector

from ...conftest import calibration, run, toys
from ...stream.conftest import make_llava

NAMES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
         "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]  # fmt: skip


@pytest.fixture
def grams(monkeypatch):
    """Counts the products behind Hessians."""
    made = []

    def count(inputs, weights):
        made.append(inputs)
        return weighted_gram(inputs, weights)

    monkeypatch.setattr("tamp_lightning.passes.callbacks.statistics.weighted_gram", count)
    return made


@pytest.mark.parametrize(
    ("choices", "products"),
    [
        ({"tokens": "all"}, 4),  # q, k and v; o; gate and up; down
        ({"tokens": "text_only"}, 8),  # and as many over all tokens
        ({"tokens": "atv"}, 8),
        ({"tokens": "amia"}, 7 + 4),  # tokens are chosen per linear
        ({"tokens": "modality_mix"}, 4 * 4),  # one per modality
        ({"tokens": "all", "solver": "wanda"}, 0),
        ({"tokens": "all", "solver": "magnitude"}, 0),
    ],
)
def test_linears_that_read_the_same_tokens_share_a_hessian(choices, products, grams):
    method = Method(**{"solver": "sparsegpt", "allocation": "uniform", **choices})
    run(make_llava(), calibration(toys("ptpp"), 2), method)
    assert len(grams) == products * 3 * 2  # blocks, batches


class Spy(L.Callback):
    """Looks at the statistics before a block is pruned and after."""

    def __init__(self):
        self.before, self.after, self.titles, self.stages = [], [], [], []

    def on_train_epoch_start(self, trainer, module):
        self.titles.append(title(module))
        self.stages.append(module.stage)
        self.statistics = next(c for c in trainer.callbacks if isinstance(c, StatisticsCollector))
        self.after.append((len(self.statistics._sums), len(self.statistics._own.grams)))

    def on_train_batch_end(self, trainer, module, *_):
        if module.stage == "collect":
            self.before.append({one.name: self.statistics.of(one)[WHOLE] for one in self.statistics._sums})


def test_statistics_are_freed_with_their_block_and_shared_until_then():
    spy = Spy()
    method = Method(tokens="all", allocation="uniform", solver="sparsegpt")
    run(make_llava(), calibration(toys("pt"), 1), method, spy)
    assert spy.after == [(0, 0)] * 3
    last = spy.before[1]
    assert list(last) == NAMES
    assert last[NAMES[0]].hessian is last[NAMES[1]].hessian is last[NAMES[2]].hessian
    assert last[NAMES[0]].hessian is not last[NAMES[3]].hessian
    for statistics in last.values():
        torch.testing.assert_close(statistics.hessian.diagonal().double(), statistics.sq_norm, rtol=1e-5, atol=1e-6)
        assert statistics.hessian.dtype == torch.float32


@pytest.mark.parametrize(("tokens", "stages"), [("atv", ["drift", "collect"]), ("modality_mix", ["collect", "mix"])])
def test_a_second_pass_goes_over_the_same_block(tokens, stages):
    spy = Spy()
    spy.on_train_batch_end = lambda *_: None
    pruned = run(make_llava(), calibration(toys("ptpp"), 2), Method(tokens=tokens, allocation="uniform"), spy)
    assert spy.stages == stages * 3
    assert spy.titles == [f"prune {k}/3" for k in (1, 1, 2, 2, 3, 3)]
    assert pruned.seconds.keys() == {"prune"}


def test_a_method_without_activations_counts_no_token():
    pruned = run(
        make_llava(), calibration(toys("pt"), 2), Method(tokens="all", allocation="uniform", solver="magnitude")
    )
    assert {tuple(share) for share in pruned.token_share.values()} == {(0.0, 0.0, 0.0, 0.0)}
    assert {row["tokens_per_sample"] for row in pruned.linears.values()} == {0.0}


def test_errors_of_a_solver_name_the_linear(monkeypatch):
    def fails(*_, **__):
        raise ValueError("the Hessian is not positive definite")

    monkeypatch.setattr("tamp_lightning.methods.solvers.sparsegpt", fails)
    method = Method(tokens="all", allocation="uniform", solver="sparsegpt")
    with pytest.raises(ValueError, match=r"layers\.0\.self_attn\.q_proj: the Hessian is not positive definite"):
        run(make_llava(), calibration(toys("pt"), 2), method)


def test_a_chooser_stands_only_where_there_is_something_to_choose():
    for method in (Method(), Method(tokens="modality_mix")):
        callback = PruningCallback(method, StatisticsCollector(method, None))
        assert (callback.chooser is not None) == (method.tokens == "modality_mix")
    assert Method().token_rule == Amia()
