"""Calibration samples as batches."""

import pytest
import torch

from tamp_lightning.data import sources
from tamp_lightning.data.calibration import CalibrationData, Collator

from ..conftest import as_batch, toys
from .conftest import llava_file


def test_text_and_pictures_share_a_batch(tmp_path, rows, processor):
    data = sources.from_llava_json(llava_file(tmp_path, rows), tmp_path / "media", 4, 0)
    batch = Collator(processor)([data[k] for k in range(4)])
    assert batch["sample_ids"].tolist() == [0, 1, 2, 3]
    images = (batch["input_ids"] == processor.image_token_id).sum(1).tolist()
    assert images == [88, 0, 176, 88]
    assert len(batch["pixel_values"]) == 4
    for k in range(4):
        alone = Collator(processor)([data[k]])
        length = int(batch["valid"][k].sum())
        assert bool(alone["valid"].all())
        assert batch["input_ids"][k, :length].tolist() == alone["input_ids"][0].tolist()
    assert "attention_mask" not in batch
    assert "pixel_values" not in Collator(processor)([data[1]])


def test_ready_batches_are_numbered_in_order():
    batches = [{"input_ids": torch.ones(n, 4, dtype=torch.int64)} for n in (2, 1, 3)]
    loader = CalibrationData.from_batches(batches).train_dataloader()
    assert [batch["sample_ids"].tolist() for batch in loader] == [[0, 1], [2], [3, 4, 5]]


def test_calibration_data_keeps_the_order_given(tmp_path, rows, processor):
    samples = sources.from_llava_json(llava_file(tmp_path, rows), tmp_path / "media", 4, 0)
    loader = CalibrationData.from_samples(samples, processor, 3).train_dataloader()
    assert [batch["sample_ids"].tolist() for batch in loader] == [[0, 1, 2], [3]]


def test_no_batch_and_left_padding_are_refused():
    with pytest.raises(ValueError, match="calibration is empty"):
        CalibrationData.from_batches([])
    batch = as_batch(toys("tt"))
    left = {k: v.flip(1) for k, v in batch.items()}
    with pytest.raises(ValueError, match="pad on the right"):
        CalibrationData.from_batches([batch, left])
    batch["attention_mask"][0] = 0
    with pytest.raises(ValueError, match="batch 0: row 0 of attention_mask is all padding: leave the sample out"):
        CalibrationData.from_batches([batch])
