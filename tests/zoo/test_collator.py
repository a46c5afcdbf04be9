"""Media of every kind reach the processor."""

import pytest
import torch

from tamp_lightning.data.calibration import Collator, Sample


class Processor:
    """Notes what it is given."""

    def apply_chat_template(self, messages):
        return messages[0]["content"]

    def __call__(self, text, images=None, videos=None, padding=None, padding_side=None, return_tensors=None):
        self.given = {"images": images, "videos": videos}
        return {"input_ids": torch.ones(len(text), 3, dtype=torch.int64)}


def sample(number, **media):
    return Sample(number, [{"role": "user", "content": "x"}], media.pop("images", []), **media)


def test_media_are_strung_together_in_order_and_left_out_where_there_are_none():
    processor = Processor()
    batch = Collator(processor)([sample(4, videos=["a", "b"]), sample(2), sample(9, videos=["c"])])
    assert processor.given == {"images": None, "videos": ["a", "b", "c"]}
    assert batch["sample_ids"].tolist() == [4, 2, 9]


def test_media_that_the_processor_does_not_take_are_refused():
    with pytest.raises(ValueError, match="samples have audio, which Processor does not take"):
        Collator(Processor())([sample(0, audio=[[0.0]])])
