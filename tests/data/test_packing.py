"""Packed questions: each gets exactly what it would get in a sequence of its own."""

import pytest
import torch
from torch.nn import functional as F

from tamp_lightning.data.easy_vqa import load_picture
from tamp_lightning.data.packing import IGNORE, PADDING, collate, conversation, pack, packed_mask
from tamp_lightning.evaluation.packed import EXTRAS

TURNS = [
    ("is there a red shape?", "no"),
    ("what shape is in the image?", "circle"),
    ("what color is the shape?", "blue"),
]
PICTURE = load_picture("test", 0)


def logits(model, batch):
    with torch.no_grad():
        return model(**{k: v for k, v in batch.items() if k not in EXTRAS}, use_cache=False).logits


def test_packed_logits_are_those_of_single_questions(processor, bed):
    """A second picture with more questions makes the first row padded as well."""
    other = load_picture("test", 1)
    first, second = pack(processor, PICTURE, TURNS[:2]), pack(processor, other, TURNS)
    batch = collate([first, second])
    assert bool((batch["segments"] == PADDING).any())
    found = logits(bed, batch)
    for row, (picture, turns) in enumerate(((PICTURE, TURNS[:2]), (other, TURNS))):
        for k, (question, answer) in enumerate(turns, start=1):
            text = processor.apply_chat_template(conversation(question, answer))
            single = processor(text=[text], images=[picture], return_tensors="pt")
            alone = logits(bed, single)[0]
            mine = ((batch["segments"][row] == k) | (batch["segments"][row] == 0)).nonzero().squeeze(1)
            length = len(mine)
            assert torch.equal(batch["input_ids"][row, mine], single["input_ids"][0, :length])
            torch.testing.assert_close(found[row, mine], alone[:length], rtol=1e-5, atol=1e-5)


def test_labels_and_first_positions_mark_the_answers(processor):
    packed = pack(processor, PICTURE, TURNS)
    tokenizer = processor.tokenizer
    for k, (_, answer) in enumerate(TURNS, start=1):
        wanted = packed.labels[packed.segments == k]
        assert tokenizer.decode(wanted[wanted != IGNORE]) == f"{answer}<|im_end|>"
        first = int(packed.first[k - 1])
        assert packed.segments[first] == k
        assert packed.labels[first] == tokenizer(answer)["input_ids"][0]
        assert packed.labels[first - 1] == IGNORE
        assert packed.input_ids[first + 1] == packed.labels[first]  # labels are shifted already
    assert bool((packed.labels[packed.segments == 0] == IGNORE).all())


def test_loss_on_packed_labels_is_the_mean_over_single_answers(processor, bed):
    packed = collate([pack(processor, PICTURE, TURNS)])
    together = F.cross_entropy(logits(bed, packed).flatten(0, 1), packed["labels"].flatten(), ignore_index=IGNORE)
    losses, counts = [], []
    for turn in TURNS:
        batch = collate([pack(processor, PICTURE, [turn])])
        counts.append(int((batch["labels"] != IGNORE).sum()))
        losses.append(
            F.cross_entropy(
                logits(bed, batch).flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORE, reduction="sum"
            )
        )
    torch.testing.assert_close(together, sum(losses) / sum(counts), rtol=1e-5, atol=1e-6)


def test_mask_by_hand():
    """Two prefix tokens, one question of two tokens, one of one token, one padding token."""
    mask = packed_mask(torch.tensor([[0, 0, 1, 1, 2, PADDING]]))
    assert mask.shape == (1, 1, 6, 6)
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_positions_continue_the_prefix_in_every_segment(processor):
    packed = pack(processor, PICTURE, TURNS)
    shared = int((packed.segments == 0).sum())
    for k in (1, 2, 3):
        positions = packed.position_ids[packed.segments == k]
        assert positions.tolist() == list(range(shared, shared + len(positions)))
    assert packed.position_ids[:shared].tolist() == list(range(shared))


def test_widened_placeholder_is_what_the_processor_makes_of_it(processor):
    packed = pack(processor, PICTURE, TURNS[:1])
    for picture in (PICTURE, PICTURE.resize((40, 90))):
        question, answer = TURNS[0]
        packed = pack(processor, picture, [(question, answer)])
        text = processor.apply_chat_template(conversation(question, answer))
        real = processor(text=[text], images=[picture], return_tensors="pt")
        count = int((real["input_ids"] == processor.image_token_id).sum())
        assert count > 20
        assert torch.equal(packed.input_ids, real["input_ids"][0, : len(packed.input_ids)])
        assert processor.tokenizer.decode(real["input_ids"][0, len(packed.input_ids) :]) == "\n"
        assert torch.equal(packed.pixels["pixel_values"], real["pixel_values"])
        assert torch.equal(packed.pixels["image_sizes"], real["image_sizes"])


def test_collate_names_the_row_and_position_of_every_question(processor):
    first, second = pack(processor, PICTURE, TURNS), pack(processor, PICTURE, TURNS[:1])
    batch = collate([first, second])
    assert batch["answers"].tolist() == [*([0, int(p)] for p in first.first), [1, int(second.first[0])]]
    for row, position in batch["answers"].tolist():
        assert batch["labels"][row, position] != IGNORE
    assert batch["pixel_values"].shape[0] == 2


def test_equal_questions_and_a_question_that_starts_like_another_stay_apart(processor):
    packed = pack(processor, PICTURE, [TURNS[0], TURNS[0], ("is there a red shape? yes", "no")])
    assert sorted(set(packed.segments.tolist())) == [0, 1, 2, 3]
    assert len(packed.first) == 3
    for k in (1, 2, 3):
        assert int(((packed.segments == k) & (packed.labels != IGNORE)).sum()) == 2


def test_no_question_is_refused(processor):
    with pytest.raises(ValueError, match="no question to pack"):
        pack(processor, PICTURE, [])


def test_a_template_that_rewrites_the_prompt_is_refused(processor):
    import copy

    odd = copy.deepcopy(processor)
    odd.chat_template = "{% if add_generation_prompt %}<image>a{% else %}<image>b yes<|im_end|>{% endif %}"
    with pytest.raises(ValueError, match="chat template changes the prompt of 'is there"):
        pack(odd, PICTURE, TURNS[:1])
