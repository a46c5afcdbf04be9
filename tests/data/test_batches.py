"""Batches that somebody else made: each fault is named in one line."""

import pytest
import torch

from tamp_lightning.data.batches import check_batch, right_padded

IDS = torch.ones(2, 3, dtype=torch.long)
BAD = {
    "list": ([1, 2], "batch 4 is a list: expected the dict"),
    "empty": ({}, "has no input_ids, but nothing"),
    "embeddings": ({"inputs_embeds": IDS}, r"has no input_ids \(the kind of every token .*, but inputs_embeds"),
    "numbers": ({"input_ids": [[1]]}, "input_ids is a list"),
    "flat": ({"input_ids": IDS[0]}, r"input_ids has shape \[3\], expected \[samples, tokens\]"),
    "no token": ({"input_ids": IDS[:, :0]}, r"input_ids has shape \[2, 0\]"),
    "floats": ({"input_ids": IDS.float()}, "input_ids holds torch.float32, expected whole numbers"),
    "mask": ({"input_ids": IDS, "attention_mask": [1]}, "attention_mask is a list"),
    "mask's shape": ({"input_ids": IDS, "attention_mask": IDS[:1]}, r"has shape \[1, 3\], input_ids \[2, 3\]"),
}


@pytest.mark.parametrize(("batch", "complaint"), BAD.values(), ids=BAD)
def test_what_is_no_batch_is_refused(batch, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_batch(4, batch)


def test_a_batch_of_a_processor_passes():
    check_batch(0, {"input_ids": IDS, "attention_mask": torch.ones(2, 3), "pixel_values": torch.zeros(1)})


def test_padding_stands_at_the_end():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    assert right_padded(mask).tolist() == [[True, True, True], [True, False, False]]
    for row in ([0, 1, 1], [1, 0, 1]):
        with pytest.raises(ValueError, match="here: attention_mask has padding before tokens"):
            right_padded(torch.tensor([[1, 1, 1], row]), "here: ")
    with pytest.raises(ValueError, match="row 1 of attention_mask is all padding"):
        right_padded(torch.tensor([[1, 1], [0, 0]]))
