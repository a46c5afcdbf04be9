"""The metrics inside a LightningModule, with the precision that casts every float."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from tamp_lightning.metrics import DenseFidelity, YesNo

NUM_SAMPLES = 1200


class Scored(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.pope, self.fidelity = YesNo(NUM_SAMPLES), DenseFidelity()

    def validation_step(self, batch, batch_idx):
        assert self.weight.dtype == torch.bfloat16
        self.pope.update(batch, ["yes"] * len(batch), ["yes", "no"] * (len(batch) // 2))
        logits = torch.zeros(len(batch), 2, dtype=torch.float32)
        self.fidelity.update(logits, logits, torch.zeros(len(batch), dtype=torch.int64))

    def on_validation_epoch_end(self):
        self.log_dict(self.pope.compute())
        self.log_dict(self.fidelity.compute())
        self.pope.reset()
        self.fidelity.reset()


def test_bf16_true_and_log_dict(tmp_path):
    trainer = L.Trainer(
        accelerator="cpu",
        precision="bf16-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    loader, model = DataLoader(range(NUM_SAMPLES), batch_size=100), Scored()
    for _ in range(2):
        (result,) = trainer.validate(model, loader, verbose=False)
        assert result["coverage"] == 1
        assert (result["accuracy"], result["pred_yes_ratio"]) == (0.5, 1)
        assert result["f1"] == pytest.approx(2 / 3, abs=1e-6)
        assert result["nll_pruned"] == pytest.approx(0.6931472, abs=1e-6)
