import pytest
import torch
from accelerate import init_empty_weights
from transformers import (
    JetMoeForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from tamp_lightning.methods.selection import Selection
from tamp_lightning.stream import AUDIO, IMAGE, TEXT, VIDEO, ModelFacts, find_facts

from ..stream.conftest import IMAGE_ID, make_llama, make_llava, make_qwen2, text_config
from ..zoo.newer import jetmoe

LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def names(facts: ModelFacts) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(linear.name for linear in block) for block in facts.linears)


def test_finds_the_decoder_of_a_multimodal_model():
    model = make_llava()
    facts = find_facts(model)
    assert facts.blocks == "model.language_model.layers"
    assert names(facts) == (LINEARS,) * 3
    assert facts.modality_ids == {IMAGE_ID: IMAGE}


def test_a_linear_knows_where_it_stands():
    model = make_llava()
    linear = find_facts(model).linears[2][5]
    block = model.model.language_model.layers[2]
    assert (linear.block, linear.name, linear.full) == (2, "mlp.up_proj", "model.language_model.layers.2.mlp.up_proj")
    assert linear.weight(block) is block.mlp.up_proj.weight
    assert linear.shape == tuple(block.mlp.up_proj.weight.shape)
    assert linear.key is None


@pytest.mark.parametrize("make", [make_llama, make_qwen2])
def test_finds_the_decoder_of_a_text_model(make):
    facts = find_facts(make())
    assert (facts.blocks, names(facts), facts.modality_ids) == ("model.layers", (LINEARS,) * 3, {})


def test_works_on_the_meta_device():
    with init_empty_weights(include_buffers=False):
        model = make_llava(tied=True)
    assert find_facts(model) == find_facts(make_llava(tied=True))


def test_include_and_exclude_are_searched_in_full_names():
    facts = find_facts(make_llava(), Selection([r"mlp\."], [r"layers\.0\.", r"down_proj$"]))
    assert names(facts) == ((), ("mlp.gate_proj", "mlp.up_proj"), ("mlp.gate_proj", "mlp.up_proj"))


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            {"include": ["q_porj"]},
            "include pattern 'q_porj' finds no linear .*q_proj.*model.layers.0.self_attn",
        ),
        ({"exclude": ["lm_head"]}, "exclude pattern 'lm_head' finds no linear of the decoder blocks"),
        ({"include": ["("]}, r"include pattern '\(' is not a regular expression"),
        ({"exclude": ["layers"]}, "no linear left to prune in model.layers"),
    ],
)
def test_patterns_that_do_nothing_are_refused_in_one_line(patterns, message):
    with pytest.raises(ValueError, match=message) as caught:
        find_facts(make_llama(), Selection(**patterns))
    assert "\n" not in str(caught.value)


def test_shared_weights_are_refused_unless_excluded():
    model = make_llama()
    model.model.layers[2].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    with pytest.raises(ValueError, match=r"layers\.0\.mlp\.up_proj\.weight is shared with .*layers\.2"):
        find_facts(model)
    assert "mlp.up_proj" not in names(find_facts(model, Selection(exclude=[r"up_proj"])))[0]


def test_declared_ties_are_refused_on_the_meta_device():
    with init_empty_weights(include_buffers=False):
        model = make_llama()
    model.all_tied_weights_keys = {"model.layers.1.mlp.up_proj.weight": "model.embed_tokens.weight"}
    with pytest.raises(ValueError, match=r"shared with model\.embed_tokens\.weight"):
        find_facts(model)


@pytest.mark.parametrize(
    ("include", "exclude", "count"),
    [((), (), 4 + 6), (("self_attn",), (), 4), ((), (r"experts\.",), 4), ((r"experts\.1\.(gate|up)_proj",), (), 2)],
)
def test_matrices_of_experts_are_linears_by_name(include, exclude, count):
    model = MixtralForCausalLM(text_config(MixtralConfig, num_local_experts=2))
    facts = find_facts(model, Selection(include, exclude))
    assert [len(block) for block in facts.linears] == [count] * len(facts.linears)
    for linear in facts.all_linears:
        layer = model.model.layers[linear.block]
        assert linear.weight(layer).shape == linear.shape
        assert linear.weight(layer).data_ptr() >= layer.get_parameter(linear.parameter).data_ptr()  # a view, no copy


def test_models_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="mixture of experts"):
        find_facts(JetMoeForCausalLM(jetmoe()))
    encoder_decoder = T5ForConditionalGeneration(
        T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )
    with pytest.raises(ValueError, match="encoder-decoder"):
        find_facts(encoder_decoder)


FACTS = ModelFacts("layers", ((),), {90: IMAGE, 91: VIDEO, 92: AUDIO})
IDS = torch.tensor([[1, 90, 90, 2], [91, 92, 3, 4]])
BY_ID = [[TEXT, IMAGE, IMAGE, TEXT], [VIDEO, AUDIO, TEXT, TEXT]]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, BY_ID),
        (
            [[1, 1, 1, 0], [2, 3, 0, 0]],
            [[IMAGE, IMAGE, IMAGE, TEXT], [VIDEO, AUDIO, TEXT, TEXT]],
        ),  # a separator
        ([[0, 1, 1, 0], [1, 1, 0, 0]], BY_ID),  # video and audio called 1
        ([[0, 0, 0, 0], [0, 0, 0, 0]], BY_ID),
        ([[0, 1, 1, 0], [2, 3, 0, 7]], BY_ID),  # no such modality
    ],
)
def test_modality_trusts_token_types_only_in_transformers_meaning(given, expected):
    batch = {"input_ids": IDS} | ({} if given is None else {"mm_token_type_ids": torch.tensor(given)})
    modality = FACTS.modality(batch)
    assert modality.dtype == torch.int64
    assert modality.tolist() == expected


def test_modality_needs_ids():
    assert FACTS.modality({"mm_token_type_ids": torch.tensor([[0, 1]])}).tolist() == [[TEXT, IMAGE]]
    with pytest.raises(ValueError, match="no input_ids or mm_token_type_ids among"):
        FACTS.modality({"inputs_embeds": torch.zeros(1, 2, 3)})
