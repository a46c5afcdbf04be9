"""Families that a plain walk would get wrong are refused, with the reason."""

import pytest
import torch
import transformers as tf

from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.methods.method import Method
from tamp_lightning.passes.trainer import prune_stream
from tamp_lightning.stream import MemoryStream

from .families import FAMILIES, SLIDING, TEXT, text

IDS = torch.randint(3, 80, (1, 12), generator=torch.Generator().manual_seed(0))


def qwen3_vl_moe():
    config = FAMILIES["qwen3_vl"].config()
    changes = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16, "head_dim": 8}
    return tf.Qwen3VLMoeForConditionalGeneration(
        tf.Qwen3VLMoeConfig(
            vision_config=config.vision_config.to_dict(),
            text_config={**TEXT, "rope_parameters": config.text_config.rope_parameters, **changes},
        )
    )


def gemma4():
    config = tf.Gemma4TextConfig(
        **TEXT, head_dim=8, layer_types=SLIDING, sliding_window=6, num_kv_shared_layers=2,
        hidden_size_per_layer_input=8, vocab_size_per_layer_input=96, global_head_dim=8,
    )  # fmt: skip
    return tf.Gemma4ForCausalLM(config)


def opt():
    sizes = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 48}
    return tf.OPTForCausalLM(tf.OPTConfig(**sizes, max_position_embeddings=64, word_embed_proj_dim=32))


def gpt2():
    sizes = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    return tf.GPT2LMHeadModel(tf.GPT2Config(**sizes, bos_token_id=1, eos_token_id=2))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: tf.MixtralForCausalLM(text(tf.MixtralConfig, num_local_experts=2)), "a mixture of experts"),
        (qwen3_vl_moe, "a mixture of experts"),
        (gemma4, r"share a state \('shared_kv_states'\)"),
        (opt, r"layers\.0\.fc1 reads a tensor of shape \(12, 32\)"),
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
