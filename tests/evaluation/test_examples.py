"""Videos through a real video processor and a tiny LLaVA-NeXT-Video (needs torchvision, as transformers' own do)."""

from copy import deepcopy

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.evaluation.examples import Examples, LeftCollator, accepts, check_accepts
from tamp_lightning.evaluation.generate import GenerationTask
from tamp_lightning.evaluation.items import GenerationOptions
from tamp_lightning.evaluation.scoring import score_into
from tamp_lightning.evaluation.store import Store

from ..fixtures.layouts import LAYOUTS

pytest.importorskip("torchvision")
pytest.importorskip("av")
TEMPLATE = (
    "{% for message in messages %}user {% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<{{ part['type'] }}>{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %} assistant{% endif %}"
)


@pytest.fixture(scope="module")
def video(processor):
    from transformers import LlavaNextVideoProcessor, LlavaNextVideoVideoProcessor

    tokenizer = deepcopy(processor.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<video>"]})
    size = {"height": 32, "width": 32}
    return LlavaNextVideoProcessor(
        image_processor=processor.image_processor,
        video_processor=LlavaNextVideoVideoProcessor(size={"shortest_edge": 32}, crop_size=size),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


@pytest.fixture(scope="module")
def model(video):
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=len(video.tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3,
    )  # fmt: skip
    ids = {name: video.tokenizer.convert_tokens_to_ids(f"<{name}>") for name in ("image", "video")}
    config = LlavaNextVideoConfig(
        vision_config=vision, text_config=text, image_token_index=ids["image"], video_token_index=ids["video"],
        image_grid_pinpoints=[[64, 64]], spatial_pool_stride=2,
    )  # fmt: skip
    return LlavaNextVideoForConditionalGeneration(config).eval()


def test_frames_become_a_video_of_the_model(video, tmp_path):
    benchmark = BENCHMARKS["videomme"]
    items = benchmark.read(LAYOUTS["videomme"][1](tmp_path))
    assert accepts(video, "video")
    check_accepts(benchmark, items, video, frames_as_pictures=False)
    batch = LeftCollator(video)([Examples(benchmark, items, [0, 3], video, frames=3)[k] for k in range(2)])
    assert batch["inputs"]["pixel_values_videos"].shape[:2] == (2, 3)


@pytest.mark.parametrize("layout", ["videomme subtitles", "mvbench", "music_avqa json"])
def test_batches_of_videos_give_the_replies_of_single_ones(layout, video, model, trainer, tmp_path):
    name, write = LAYOUTS[layout]
    items = BENCHMARKS[name].read(write(tmp_path))
    replies = []
    for size in (1, 4):
        store = Store(tmp_path / str(size), name, {})
        store.start()
        task = GenerationTask(BENCHMARKS[name], items, video, GenerationOptions(new_tokens=4, frames=3))
        scores = score_into(store, model, task, trainer, batch_size=size)
        assert scores.results[name]["coverage"] == 1
        replies.append([record.reply for _, record in sorted(store.records().items())])
    assert replies[0] == replies[1]
