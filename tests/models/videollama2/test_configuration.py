import pytest
import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from tamp_lightning.models.videollama2 import BeatsConfig, Videollama2Config
from tamp_lightning.stream import find_facts

from .conftest import llama_config, tiny_config


def millions(module: nn.Module) -> int:
    return round(sum(p.numel() for p in module.parameters()) / 1e6)


def test_real_shape_has_the_parameters_of_the_7b_model():
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(Videollama2Config.av_7b())
    body = model.model
    assert millions(model) == 8527
    assert millions(body.language_model) + millions(model.lm_head) == pytest.approx(7616, abs=1)
    parts = (body.vision_tower, body.mm_projector, body.audio_tower, body.mm_projector_a)
    assert [millions(part) for part in parts] == [428, 377, 91, 16]
    facts = find_facts(model)
    assert sum(map(len, facts.linears)) == 196
    assert facts.blocks == "model.language_model.layers"
    assert facts.modality_ids == {151646: 1, 151647: 2, 151648: 3}


def test_token_counts_of_the_real_shape():
    config = Videollama2Config.av_7b()
    assert config.video_tokens() == 8 * 13 * 13 == 1352
    assert config.audio_config.tokens(2998) == 187 * 8 == 1496
    assert Videollama2Config.av_7b(mm_projector_type="stc_connector").video_tokens() == 9 * 14 * 14


def test_written_flat_and_read_back(tmp_path):
    config = Videollama2Config.av_7b(use_mm_proj=True)
    config.save_pretrained(tmp_path)
    written = config.to_diff_dict()
    assert not any(key in written for key in ("text_config", "vision_config", "audio_config"))
    assert (written["hidden_size"], written["rope_theta"], written["use_mm_proj"]) == (3584, 1e6, True)
    again = AutoConfig.from_pretrained(tmp_path)
    assert again.to_diff_dict() == written
    assert again.text_config.rope_parameters["rope_theta"] == 1e6


def test_tower_sizes_can_be_overridden_one_by_one(tmp_path):
    config = Videollama2Config.av_7b(vision_config={"num_hidden_layers": 4}, audio_config={"encoder_layers": 2})
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert (again.vision_config.num_hidden_layers, again.vision_config.hidden_size) == (4, 1152)
    assert (again.audio_config.encoder_layers, again.audio_config.encoder_embed_dim) == (2, 768)
    assert isinstance(again.audio_config, BeatsConfig)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mm_projector_type": "mlp2x_gelu"}, "mm_projector_type is 'mlp2x_gelu', but only stc_connector_v35 and"),
        ({"mm_projector_a_type": "linear"}, "mm_projector_a_type is 'linear'"),
        ({"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature is 'cls_patch'"),
        ({"mm_vision_tower": "openai/clip-vit-large-patch14-336"}, "only SigLIP towers can be used"),
        ({"mm_hidden_size": 1024}, "mm_hidden_size is 1024, but the vision tower has width 48"),
        ({"hidden_size_a": 4096}, "hidden_size_a is 4096, but the language model has width 64"),
        ({"text_config": {"model_type": "gemma2"}}, "text_config has final_logit_softcapping"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)


@torch.no_grad()
def test_another_language_model_with_a_tied_head(tmp_path):
    torch.manual_seed(0)
    config = tiny_config(text_config=llama_config(), hidden_size_a=32)
    model = AutoModelForCausalLM.from_config(config).eval()
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    model.save_pretrained(tmp_path)
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    ids = torch.randint(1, 300, (1, 9))
    assert torch.equal(again.eval()(input_ids=ids).logits, model(input_ids=ids).logits)
    assert again.config.text_config.model_type == "llama"


def test_without_towers_there_is_only_the_language_model():
    config = tiny_config(mm_audio_tower=None, mm_vision_tower=None)
    model = AutoModelForCausalLM.from_config(config)
    assert {name.split(".")[1] for name, _ in model.named_parameters() if name.startswith("model.")} == {
        "language_model"
    }
    with pytest.raises(ValueError, match="input_features is given, but this model has no audio_tower"):
        model(input_ids=torch.tensor([[1]]), input_features=torch.zeros(1, 98, 128))
