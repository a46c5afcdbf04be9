"""Families that a plain walk would get wrong are refused, with the reason."""

import pytest
import torch
import transformers as tf

from tamp_lightning.checkpoint.facts import find_facts, media_of
from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.selection import Selection
from tamp_lightning.passes.trainer import prune_stream
from tamp_lightning.stream import MemoryStream

from .families import FAMILIES
from .newer import NEWER, chameleon, gemma3n, idefics, jetmoe

IDS = torch.randint(3, 80, (1, 12), generator=torch.Generator().manual_seed(0))


def gpt2():
    sizes = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    return tf.GPT2LMHeadModel(tf.GPT2Config(**sizes, bos_token_id=1, eos_token_id=2))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda: tf.JetMoeForCausalLM(jetmoe()),
            r"a mixture of experts\) that transformers does not run through its registry .*"
            r"dense with exclude: \['input_linear\\.', 'output_linear\\.'\]",
        ),
        (lambda: tf.Gemma3nForCausalLM(gemma3n()), r"hidden states of shape \(4, 1, 8, 32\) .*expected one \[B,n,h\]"),
        (
            lambda: tf.ChameleonForConditionalGeneration(chameleon()),
            "return a tuple rather than the hidden state",
        ),
        (gpt2, "no linear left to prune"),
        (lambda: FAMILIES["mllama"].make(), "calls 0 times block 1"),
    ],
)
def test_refused_before_anything_is_pruned(make, reason):
    model = make().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    method = Method(tokens="all", allocation="uniform")
    with pytest.raises(ValueError, match=reason):
        prune_stream(MemoryStream(model), CalibrationData.from_batches([{"input_ids": IDS}]), method, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_token_rules_by_attention_need_self_attention():
    data = CalibrationData.from_batches(FAMILIES["mllama"].batches())
    with pytest.raises(ValueError, match="needs self-attention in every block, which Mllama"):
        prune_stream(MemoryStream(FAMILIES["mllama"].make()), data, Method(), progress=False)


def test_media_without_a_token_are_refused():
    model, batches = FAMILIES["llava"].make(), FAMILIES["llava"].batches()[1:2]
    stream = MemoryStream(model)
    object.__setattr__(stream.facts, "modality_ids", {7777: 1})
    with pytest.raises(ValueError, match="pixel_values, but every token in it counts as text"):
        prune_stream(stream, CalibrationData.from_batches(batches), Method(), progress=False)


def test_pictures_that_are_no_tokens_are_refused():
    """IDEFICS of 2023: pictures enter through cross-attention between the blocks, and have to be there."""
    model = tf.IdeficsForVisionText2Text(idefics()).eval()
    reason = "IdeficsForVisionText2Text does not run on text alone .*and no token is known to stand for its pictures"
    with pytest.raises(ValueError, match=reason):
        MemoryStream(model)


@pytest.mark.parametrize("name", [name for name, family in (FAMILIES | NEWER).items() if family.media])
def test_media_never_count_as_text(name):
    family = (FAMILIES | NEWER)[name]
    facts = find_facts(family.make(), Selection(exclude=family.exclude))
    for kind in family.media:
        batch = family.sample((kind,), 12, 0)
        assert media_of(batch), kind
        for token in facts.modality_ids:
            batch["input_ids"][batch["input_ids"] == token] = 5
        batch.pop("mm_token_type_ids", None)
        with pytest.raises(ValueError, match="but every token in it counts as text"):
            facts.modality(batch)
