"""Lines of a log in place of bars."""

import lightning as L
import pytest
import torch

from tamp_lightning.passes.callbacks import plain_progress
from tamp_lightning.passes.callbacks.plain_progress import Pace, PlainScoreProgress, PlainStepProgress
from tamp_lightning.passes.callbacks.progress import PlainBlockProgress, block_progress


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_phase_tells_elapsed_and_left_but_not_too_often():
    clock = Clock()
    pace = Pace("prune", 30, "blocks", clock)
    assert pace.first() == "prune: 30 blocks"
    clock.now += 10
    assert pace.at(4) is None
    clock.now += 15
    assert pace.at(0) is None
    assert pace.at(10) == "prune: 10 of 30 blocks in 25 s, about 50 s left"
    assert pace.at(11) is None
    clock.now += 125
    assert pace.at(25) == "prune: 25 of 30 blocks in 2 min 30 s, about 30 s left"
    assert pace.last() == "prune: done in 2 min 30 s"


class Scored(L.LightningModule):
    def validation_step(self, batch, index, dataloader_idx=0):
        pass


class Trained(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch, index):
        return (self.weight * batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(plain_progress, "EVERY", 0.0)


def trainer(bar, **more):
    return L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[bar], **more)


def test_scores_are_counted_over_all_loaders(always, capsys):
    loaders = [torch.utils.data.DataLoader(torch.ones(n)) for n in (2, 1)]
    trainer(PlainScoreProgress("score dense"), enable_model_summary=False).validate(Scored(), loaders, verbose=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("score dense")]
    assert [line.split(" in ")[0] for line in lines] == [
        "score dense: 3 batches",
        *(f"score dense: {done} of 3 batches" for done in (1, 2, 3)),
        "score dense: done",
    ]


def test_training_is_counted_in_steps(always, capsys):
    fit = trainer(PlainStepProgress(), max_steps=2, enable_model_summary=False)
    fit.fit(Trained(), torch.utils.data.DataLoader(torch.ones(4)))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("train")]
    assert [line.split(" in ")[0] for line in lines] == [
        "train: 2 steps", "train: 1 of 2 steps", "train: 2 of 2 steps", "train: done"
    ]  # fmt: skip


def test_a_disabled_one_is_silent(capsys):
    bar = PlainBlockProgress()
    bar.disable()
    bar.begin("prune", 3, "blocks")
    bar.end()
    assert not capsys.readouterr().out


def test_without_a_terminal_there_are_lines(monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert isinstance(block_progress(), PlainBlockProgress)
