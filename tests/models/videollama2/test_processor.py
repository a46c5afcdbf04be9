import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from tamp_lightning.models.videollama2 import Videollama2Config, Videollama2Processor, sound
from tamp_lightning.models.videollama2.frames import pixels

from .conftest import SECONDS, assemble, make_tokenizer

RED = Image.new("RGB", (20, 10), "red")
VISUAL, HEARD = 18, 6 * 8  # 4 frames of 7x7 patches; 98 frames of 128 bins
QWEN = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<video>\nQ<|im_end|>\n<|im_start|>assistant\n"
)


def clip(level: int = 100, frames: int = 4) -> np.ndarray:
    return np.full((frames, 12, 16, 3), level, dtype=np.uint8)


def wave(seconds: float = SECONDS) -> torch.Tensor:
    return torch.sin(torch.arange(int(16000 * seconds), dtype=torch.float64) / 7) / 2


def runs(types: torch.Tensor) -> list[tuple[int, int]]:
    """Lengths of the runs of equal values."""
    values, counts = torch.unique_consecutive(types, return_counts=True)
    return list(zip(values.tolist(), counts.tolist(), strict=True))


def test_prompt_is_the_official_one(processor):
    user = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Q"}]}
    assert processor.apply_chat_template([user], add_generation_prompt=True) == QWEN
    plain = {"role": "user", "content": "<video>\nQ"}
    assert processor.apply_chat_template([plain], add_generation_prompt=True) == QWEN


def test_a_video_with_sound_becomes_pictures_then_sound(processor):
    out = processor("ab<video>c", videos={"video": clip(), "audio": wave(4)})
    assert runs(out["mm_token_type_ids"][0]) == [(0, 2), (2, VISUAL), (3, HEARD), (0, 1)]
    assert out["pixel_values_videos"].shape == (1, 4, 3, 98, 98)
    clips = sound.fit(sound.video_sound(wave(4)), 16000)
    assert torch.equal(out["input_features"][0], sound.fbank(clips))
    ids = out["input_ids"][0]
    assert ids[2] == processor.video_token_id
    assert ids[2 + VISUAL] == processor.audio_token_id
    assert processor.tokenizer.decode(ids[[0, 1, -1]]) == "abc"


def test_each_kind_alone(processor):
    out = processor("<image>a", images=RED)
    assert runs(out["mm_token_type_ids"][0]) == [(1, VISUAL), (0, 1)]
    assert torch.equal(out["pixel_values"][0], pixels(RED, 98))
    out = processor("<audio>a", audio=wave())
    assert runs(out["mm_token_type_ids"][0]) == [(3, HEARD), (0, 1)]
    assert torch.equal(out["input_features"][0], sound.fbank(wave()))
    out = processor("<video>a", videos=clip())
    assert runs(out["mm_token_type_ids"][0]) == [(2, VISUAL), (0, 1)]
    out = processor("abc")
    assert set(out) == {"input_ids", "attention_mask", "mm_token_type_ids"}
    assert not out["mm_token_type_ids"].any()


def test_a_mixed_batch_keeps_the_order_of_its_placeholders(processor):
    texts = ["<audio>a<video>", "x", "<image><video><audio>"]
    videos = [{"video": clip(0), "audio": wave(3)}, [RED] * 4]
    out = processor(texts, images=[RED], videos=videos, audio=[wave(0.1), wave(0.2)])
    types = out["mm_token_type_ids"]
    assert runs(types[0])[:4] == [(3, HEARD), (0, 1), (2, VISUAL), (3, HEARD)]
    assert runs(types[2])[:3] == [(1, VISUAL), (2, VISUAL), (3, HEARD)]
    assert out["attention_mask"][1].tolist() == [1] + [0] * (types.shape[1] - 1)
    first, own, last = out["input_features"]
    assert torch.equal(first, sound.fbank(sound.fit(wave(0.1), 16000)))
    assert torch.equal(last, sound.fbank(sound.fit(wave(0.2), 16000)))
    assert not torch.equal(own, first)


@torch.no_grad()
def test_the_model_takes_what_the_processor_gives(processor, model):
    out = processor(["<video>a", "bcd", "<image>"], images=RED, videos=[{"video": clip(), "audio": wave()}])
    together = model(**out).logits
    alone = model(**processor("bcd")).logits[0]
    assert torch.allclose(together[1, :3], alone, atol=2e-5)


@torch.no_grad()
def test_ragged_prompts_are_continued_as_if_alone(processor, model):
    greedy = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    video = {"video": clip(), "audio": wave()}
    out = processor(["<video>ab", "cde"], videos=video, padding_side="left")
    together = model.generate(**out, **greedy)[:, -5:]
    for row, alone in zip(together, (processor("<video>ab", videos=video), processor("cde")), strict=True):
        assert torch.equal(row, model.generate(**alone, **greedy)[0, -5:])


def test_items_for_every_prompt_in_a_list_of_their_own(processor):
    out = processor(["<image>", "<image>"], images=[[RED], [RED]])
    assert out["pixel_values"].shape == (2, 3, 98, 98)


@pytest.mark.parametrize(
    ("text", "items", "message"),
    [
        ("<video>", {}, "the text has 1 <video> tags, but 0 items"),
        ("a", {"images": [RED]}, "the text has 0 <image> tags, but 1 items"),
        ("<audio>", {"audio": torch.zeros(0)}, "non-empty row"),
        ("<audio>", {"audio": "nowhere.wav"}, "nowhere.wav does not exist"),
        ("<image>", {"images": "nowhere.png"}, "nowhere.png cannot be read as a picture"),
    ],
)
def test_bad_input(processor, text, items, message):
    if "nowhere.wav" in message:
        pytest.importorskip("av")
    with pytest.raises(ValueError, match=message):
        processor(text, **items)


def test_saved_and_loaded(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(again, Videollama2Processor)
    assert again.to_dict() == processor.to_dict()
    expected = processor("a<audio>", audio=wave())
    found = again("a<audio>", audio=wave())
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_sizes_come_from_an_official_folder_with_nothing_but_a_tokenizer(tmp_path):
    folder = assemble(tmp_path / "tiny")
    make_tokenizer().save_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    assert (processor.num_frames, processor.image_size, processor.video_tokens) == (4, 98, VISUAL)
    assert (processor.audio_tokens, processor.audio_seconds) == (1496, 30.0)
    assert Videollama2Processor.sizes(Videollama2Config.av_7b()) == {
        "num_frames": 16,
        "image_size": 384,
        "video_tokens": 1352,
        "audio_tokens": 1496,
        "audio_seconds": 30.0,
        "video_sound": True,
        "audio_patch": 16,
    }


def test_files_are_read(processor, tmp_path):
    pytest.importorskip("av")
    from .test_media import tone, write_video, write_wav

    video = write_video(tmp_path / "v.mp4")
    mute = write_video(tmp_path / "mute.mp4", sound=False, frames=3)
    wav = write_wav(tmp_path / "a.wav", 8000, tone(8000, 0.5))
    out = processor(["<video>", "<video>", "<audio>"], videos=[str(video), mute], audio=wav)
    assert out["pixel_values_videos"].shape == (2, 4, 3, 98, 98)
    heard, silent, alone = out["input_features"]
    assert torch.equal(silent, sound.fbank(torch.zeros(16000)))
    for features, frames in ((heard, 98), (alone, 48)):
        assert int(features[1 : frames - 1].mean(0).argmax()) == 23  # where 440 Hz is on the mel scale
    processor.video_sound = False
    assert "input_features" not in processor("<video>", videos=video)
