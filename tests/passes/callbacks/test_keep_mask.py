"""Pruned weights stay at zero whatever the optimiser does; what is kept is trained as if there were no mask."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from tamp_lightning.passes.callbacks.keep_mask import MaskKeeper

MASK = torch.tensor([[True, False, True], [False, False, True]])


class Regression(L.LightningModule):
    def __init__(self, optimizer=torch.optim.AdamW, **options):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 2)
        self.linear.weight.data.masked_fill_(~MASK, 0)
        self.optimizer, self.options = optimizer, options

    def training_step(self, batch, index):
        return (self.linear(batch.to(self.linear.weight.dtype)) - 1).square().mean()

    def configure_optimizers(self):
        return self.optimizer(self.parameters(), **self.options)


class Watch(L.Callback):
    """Asserts after every batch; remembers gradients as the optimiser gets them."""

    def __init__(self):
        self.steps, self.gradients = 0, []

    def on_train_batch_end(self, trainer, module, *_):
        self.steps += 1
        assert torch.equal(module.linear.weight == 0, ~MASK)

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.gradients.append(module.linear.weight.grad.clone())


class Meddler(torch.optim.SGD):
    """Adds 1 to every weight, gradient or not."""

    def step(self, closure=None):
        loss = closure() if closure else None
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data += 1
        return loss


def fit(module, masks=None, **trainer):
    watch = Watch()
    data = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    options = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, **trainer}
    keeper = MaskKeeper(masks or {"linear.weight": MASK})
    L.Trainer(
        max_epochs=2, accelerator="cpu", devices=1, enable_progress_bar=False, callbacks=[keeper, watch], **options
    ).fit(module, DataLoader(data, 2))
    return watch


@pytest.mark.parametrize(
    "trainer", [{}, {"accumulate_grad_batches": 3}, {"precision": "bf16-mixed"}, {"precision": "bf16-true"}]
)
@pytest.mark.parametrize("optimizer", ["adamw", "momentum", "meddler"])
def test_zeros_stay(trainer, optimizer):
    options = {
        "adamw": (torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.5}),
        "momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
        "meddler": (Meddler, {"lr": 0.1}),
    }
    kind, arguments = options[optimizer]
    module = Regression(kind, **arguments)
    before = module.linear.weight.detach().clone()
    assert fit(module, **trainer).steps == 8
    assert bool((module.linear.weight.float() != before)[MASK].all())
    assert torch.equal(module.linear.weight == 0, ~MASK)


def test_the_norm_that_is_clipped_is_that_of_surviving_weights():
    watch = fit(Regression(torch.optim.SGD, lr=0.0))
    assert all(bool((gradient[~MASK] == 0).all()) for gradient in watch.gradients)
    assert all(bool((gradient[MASK] != 0).all()) for gradient in watch.gradients)


def test_a_weight_that_happens_to_be_zero_may_grow():
    module = Regression(lr=0.1)
    module.linear.weight.data[0, 0] = 0
    fit(module)
    assert module.linear.weight[0, 0] != 0


@pytest.mark.parametrize(
    ("masks", "complaint"),
    [
        ({"linear.bias": MASK}, r"mask of linear.bias has shape \(2, 3\), its parameter in training \(2,\)"),
        ({"nothing": MASK}, r"mask of nothing has shape \(2, 3\), its parameter in training None"),
    ],
)
def test_masks_of_something_else_are_refused(masks, complaint):
    with pytest.raises(ValueError, match=complaint):
        fit(Regression(lr=0.1), masks)
