"""Training all of a bed on a tiny model: what moves, what stays, what is kept on the way."""

import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig, LlavaNextForConditionalGeneration

from tamp_lightning.config.recipe import Stage
from tamp_lightning.testbeds.checkpoints import load_trained
from tamp_lightning.testbeds.low_rank import is_linear
from tamp_lightning.testbeds.mixture import KINDS, MixedQuestions, NamedPictures
from tamp_lightning.testbeds.naming import Naming, _regions
from tamp_lightning.testbeds.smol_llava_next import PINPOINTS
from tamp_lightning.testbeds.train_stages import fit_stage
from tamp_lightning.testbeds.train_whole import InstructionStage, KeepProgress, load_progress, shipped, trained_state

STEPS = 4


def tiny(reader):
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=len(reader.tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=reader.image_token_id,
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-2,
        tie_word_embeddings=True,
    )
    return LlavaNextForConditionalGeneration(config)


def trainable(reader):
    model = tiny(reader)
    model.get_input_embeddings().requires_grad_(False)
    return model


@pytest.fixture(scope="module")
def fitted(reader, tmp_path_factory):
    model, lines = trainable(reader), []
    before = {k: v.clone() for k, v in model.state_dict().items()}
    stage = Stage(steps=STEPS, cycle=20, pictures=2, questions=3, log_every=2)
    asked = DataLoader(MixedQuestions(reader, 2 * STEPS, 3), batch_size=2, collate_fn=MixedQuestions.collate)
    named = DataLoader(NamedPictures(4 * STEPS), batch_size=4)
    keep = KeepProgress(tmp_path_factory.mktemp("bed") / "progress.safetensors", STEPS)
    module = InstructionStage(model, stage, KINDS, Naming(model, reader))
    loader = CombinedLoader([asked, named], "min_size")
    fit_stage(module, loader, lines.append, keep, accelerator="cpu", enable_progress_bar=False)
    return model, before, lines, keep.file


def test_everything_moves_but_the_embedding(fitted):
    model, before, _, _ = fitted
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert not any("embed_tokens" in k or "lm_head" in k for k in moved)
    assert {k for k in before if is_linear(k)} <= moved
    assert any("vision_tower" in k for k in moved)
    assert any("multi_modal_projector" in k for k in moved)


def test_lines_have_losses_and_the_kinds_that_were_asked(fitted):
    lines = fitted[2]
    assert len(lines) == STEPS // 2
    assert all("loss=" in line and "naming=" in line and "name_colour=" in line for line in lines)
    assert any(f"{kind}=" in lines[-1] for kind in ("yes_no", "count", "position"))


def test_progress_is_what_was_trained_and_goes_on(fitted, reader):
    model, _, _, file = fitted
    assert [p.name for p in file.parent.iterdir()] == ["progress.safetensors"]
    other = trainable(reader)
    load_progress(other, file)
    for name, value in trained_state(model).items():
        assert torch.equal(value, trained_state(other)[name])
    other.model.image_newline.requires_grad_(False)
    with pytest.raises(ValueError, match="check begin"):
        load_progress(other, file)


def test_what_ships_answers_as_what_was_trained(fitted, reader):
    model, before, _, file = fitted
    plain = tiny(reader)
    load_trained(plain, shipped(load_file(file), before, 24), file)
    batch = MixedQuestions.collate([MixedQuestions(reader, 1, 3)[0]])
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "segments", "answers", "items")}
    with torch.no_grad():
        one, other = model.eval()(**inputs).logits, plain.eval()(**inputs).logits
    torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)  # differences are in 8 bits


def test_regions_are_quarters_halves_and_all():
    crops = torch.tensor([[[9.0], [1.0], [2.0], [3.0], [4.0]]])  # overview, then four tiles
    assert _regions(crops).flatten().tolist() == [1, 2, 3, 4, 2, 4, 9]
