"""Labels stand on what the assistant says, and nowhere else."""

import pytest
import torch
from PIL import Image

from tamp_lightning.data.calibration import Sample
from tamp_lightning.data.conversations import ConversationCollator
from tamp_lightning.data.packing import IGNORE, pack

PICTURE = Image.new("RGB", (64, 64), (10, 200, 30))


def talk(number, *turns, picture=True):
    messages = []
    for k, (role, text) in enumerate(turns):
        image = [{"type": "image"}] if picture and k == 0 else []
        messages.append({"role": role, "content": [*image, {"type": "text", "text": text}]})
    return Sample(number, messages, [PICTURE] if picture else [])


def said(processor, batch, row):
    """What the labels of a row spell, and where: the label at t is the token at t + 1."""
    labels = batch["labels"][row]
    places = (labels != IGNORE).nonzero().flatten()
    assert torch.equal(labels[places], batch["input_ids"][row][places + 1])
    return processor.tokenizer.decode(labels[places])


def test_every_turn_of_the_assistant_counts(processor):
    two = talk(
        0, ("user", "is there a circle?"), ("assistant", "no"), ("user", "what is it?"), ("assistant", "a blue shape")
    )
    short = talk(1, ("user", "what color?"), ("assistant", "red"), picture=False)
    batch = ConversationCollator(processor)([two, short])
    assert said(processor, batch, 0) == "no<|im_end|>a blue shape<|im_end|>"
    assert said(processor, batch, 1) == "red<|im_end|>"
    assert torch.equal(batch["attention_mask"].bool(), batch["valid"])
    assert not (batch["labels"][~batch["valid"]] != IGNORE).any()


def test_agrees_with_packing_one_question(processor):
    packed = pack(processor, PICTURE, [("is there a circle?", "no")])
    batch = ConversationCollator(processor)([talk(0, ("user", "is there a circle?"), ("assistant", "no"))])
    length = len(packed.input_ids)
    assert torch.equal(batch["input_ids"][0, :length], packed.input_ids)
    assert torch.equal(batch["labels"][0, :length], packed.labels)
    assert "attention_mask" not in batch
    torch.testing.assert_close(batch["pixel_values"], packed.pixels["pixel_values"])


def test_nothing_to_learn(processor):
    with pytest.raises(ValueError, match="conversation 7 has no turn of the assistant"):
        ConversationCollator(processor)([talk(7, ("user", "is there a circle?"))])


def test_a_template_that_changes_earlier_turns_is_refused(processor, monkeypatch):
    plain = type(processor).apply_chat_template

    def forgetful(self, messages, **options):
        text = plain(self, messages, **options)
        return text.replace("circle", "shape") if len(messages) > 2 else text

    monkeypatch.setattr(type(processor), "apply_chat_template", forgetful)
    sample = talk(3, ("user", "is there a circle?"), ("assistant", "no"), ("user", "what is it?"), ("assistant", "it"))
    with pytest.raises(
        ValueError, match="conversation 3: the chat template changes its first 1 turns when more follow"
    ):
        ConversationCollator(processor)([sample])
