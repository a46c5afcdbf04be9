"""From text, pictures, videos and sounds to the model's inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from tamp_lightning.errors import InputError
from tamp_lightning.models.videollama2 import sound
from tamp_lightning.models.videollama2.configuration import Videollama2Config
from tamp_lightning.models.videollama2.frames import fill_frames, pixels, to_picture
from tamp_lightning.models.videollama2.media import read_image, read_sound, read_sound_of_video, read_video

AUDIO = 3  # as in mm_token_type_ids
TAGS = ("<image>", "<video>", "<audio>")
CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<{{ part['type'] }}>\n{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass
class _Media:
    """Features of a batch in the order of their placeholders."""

    images: list[Tensor] = field(default_factory=list)
    videos: list[Tensor] = field(default_factory=list)
    sounds: list[Tensor] = field(default_factory=list)

    def inputs(self) -> dict[str, Tensor]:
        """What the model takes; a kind of which there is nothing is left out."""
        named = {"pixel_values": self.images, "pixel_values_videos": self.videos, "input_features": self.sounds}
        return {name: torch.stack(items) for name, items in named.items() if items}


class Videollama2Processor(ProcessorMixin):
    """Expands the tags of a prompt and computes the features that belong there.

    ``<image>`` becomes the tokens of a picture, ``<audio>`` those of a sound, ``<video>`` those of a video and after
    them, unless told otherwise, those of its sound. The tags become tokens of the tokenizer if they are not yet;
    text around them is tokenized as if it stood alone.

    Args:
        tokenizer: the language model's.
        num_frames: frames per video.
        image_size: side of SigLIP's input.
        video_tokens: tokens of a video or picture.
        audio_tokens: tokens of a sound.
        audio_seconds: every sound is cut or padded to this.
        clip_seconds: a video's sound is eight clips of this length.
        audio_patch: filter-bank frames, and bins, per token of a sound.
        video_sound: whether a video file's sound is used; silence stands for a missing one.
        chat_template: Jinja template; None = Qwen2's with the tags in front.
    """

    opens_media = True
    """Pictures, videos and sounds may be given as files."""
    sampling_rate = sound.SAMPLE_RATE
    """Of sounds that are given as samples."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        num_frames: int = 16,
        image_size: int = 384,
        video_tokens: int = 1352,
        audio_tokens: int = 1496,
        audio_seconds: float = 30.0,
        video_sound: bool = True,
        clip_seconds: float = sound.CLIP_SECONDS,
        audio_patch: int = 16,
        chat_template: str | None = None,
    ) -> None:
        self.num_frames, self.image_size, self.video_tokens = num_frames, image_size, video_tokens
        self.audio_tokens, self.audio_seconds, self.video_sound = audio_tokens, audio_seconds, video_sound
        self.clip_seconds, self.audio_patch = clip_seconds, audio_patch
        self.image_token, self.video_token, self.audio_token = TAGS
        missing = [tag for tag in TAGS if tag not in tokenizer.get_vocab()]
        tokenizer.add_tokens(missing, special_tokens=True)
        self.image_token_id, self.video_token_id, self.audio_token_id = map(tokenizer.convert_tokens_to_ids, TAGS)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        super().__init__(tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    @classmethod
    def sizes(cls, config: Videollama2Config, audio_seconds: float = 30.0) -> dict[str, Any]:
        """The arguments of a processor that fits a model."""
        frames = sound.fbank_frames(round(audio_seconds * sound.SAMPLE_RATE))
        return {
            "num_frames": config.num_frames,
            "image_size": config.vision_config.image_size,
            "video_tokens": config.video_tokens(),
            "audio_tokens": config.audio_config.tokens(frames),
            "audio_seconds": audio_seconds,
            "video_sound": config.mm_audio_tower is not None,
            "audio_patch": config.audio_config.input_patch_size,
        }

    @classmethod
    def get_processor_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> tuple[dict, dict]:
        """Saved arguments; those that fit config.json where, as in official checkpoints, none were saved."""
        found, kwargs = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        if "video_tokens" not in found:
            found |= cls.sizes(Videollama2Config.from_pretrained(pretrained_model_name_or_path))
        return found, kwargs

    def __call__(
        self,
        text: str | Sequence[str],
        images: Any = None,
        videos: Any = None,
        audio: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Inputs of the model for one or several prompts.

        Args:
            text: prompts with a tag per item, in the order of the items.
            images: pictures: paths, PIL images or uint8 [h,w,3].
            videos: paths, lists of pictures, uint8 [frames,h,w,3], or a mapping with ``video`` (any of these) and
                optionally ``audio`` (path or samples), ``start`` and ``end`` (seconds; they do not cut the sound).
            audio: paths, or samples [n] in -1..1 at 16 kHz.
            **kwargs: for the tokenizer; ``padding=True`` and ``padding_side="right"`` unless given.

        Returns:
            ``input_ids``, ``attention_mask`` and ``mm_token_type_ids`` [B,n] (0 text, 1 image, 2 video, 3 audio), and
            as needed ``pixel_values`` [images,3,s,s], ``pixel_values_videos`` [videos,frames,3,s,s] and
            ``input_features`` [sounds,frames,128].

        Raises:
            InputError: tags and items differ in number, or a file or array is not what it should be.
        """
        texts = [text] if isinstance(text, str) else list(text)
        items = {tag: _flat(given, tag) for tag, given in zip(TAGS, (images, videos, audio), strict=True)}
        self._check_counts(texts, items)
        media = _Media()
        waiting = {tag: iter(given) for tag, given in items.items()}
        pattern = re.compile("|".join(TAGS))
        wide = [pattern.sub(lambda m: self._expand(m[0], next(waiting[m[0]]), media), t) for t in texts]
        options = {"padding": True, "padding_side": "right", "add_special_tokens": False}
        encoded = self.tokenizer(wide, **(options | kwargs | {"return_tensors": "pt"}))
        types = torch.tensor(self.create_mm_token_type_ids(encoded["input_ids"]))
        return BatchFeature({**encoded, "mm_token_type_ids": types, **media.inputs()})

    def silent_tokens(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Which tokens stand for nothing but digital silence, such as that which sounds are padded with.

        Args:
            inputs: what calling the processor gave.

        Returns:
            [B,n] bool.
        """
        silent = inputs["mm_token_type_ids"] == AUDIO
        if "input_features" not in inputs:
            return silent
        return silent.masked_scatter(silent, sound.silent_patches(inputs["input_features"], self.audio_patch).flatten())

    def _check_counts(self, texts: Sequence[str], items: Mapping[str, Sequence[Any]]) -> None:
        for tag, given in items.items():
            tags = sum(t.count(tag) for t in texts)
            if tags != len(given):
                raise InputError(f"the text has {tags} {tag} tags, but {len(given)} items are given for them")

    def _expand(self, tag: str, item: Any, media: _Media) -> str:
        """The placeholders of one item, whose features are put into ``media``."""
        if tag == self.image_token:
            media.images.append(pixels(_picture(item), self.image_size))
            return tag * self.video_tokens
        if tag == self.audio_token:
            media.sounds.append(self._features(item))
            return tag * self.audio_tokens
        parts = item if isinstance(item, Mapping) else {"video": item}
        frames = self._frames(parts)
        media.videos.append(torch.stack([pixels(frame, self.image_size) for frame in frames]))
        heard = self._sound_of(parts)
        if heard is None:
            return tag * self.video_tokens
        media.sounds.append(heard)
        return tag * self.video_tokens + self.audio_token * self.audio_tokens

    def _frames(self, parts: Mapping[str, Any]) -> list[Image.Image]:
        video = parts["video"]
        if isinstance(video, str | Path):
            return read_video(Path(video), self.num_frames, parts.get("start"), parts.get("end"))
        return fill_frames([_picture(frame) for frame in video], self.num_frames)

    def _sound_of(self, parts: Mapping[str, Any]) -> Tensor | None:
        """Features of a video's sound; None if it has none of its own and none is to be used."""
        if not self.video_sound or ("audio" not in parts and not isinstance(parts["video"], str | Path)):
            return None
        given = parts.get("audio", parts["video"])
        samples = read_sound_of_video(Path(given)) if isinstance(given, str | Path) else given
        length = round(self.audio_seconds * sound.SAMPLE_RATE)
        if samples is None:
            return sound.fbank(torch.zeros(length))
        checked = sound.check_samples(torch.as_tensor(samples), "a video's sound")
        return sound.fbank(sound.fit(sound.video_sound(checked, self.clip_seconds), length))

    def _features(self, item: Any) -> Tensor:
        """Features of a sound of its own: a file, or samples at 16 kHz."""
        if isinstance(item, str | Path):
            samples, rate = read_sound(Path(item))
        else:
            samples, rate = sound.check_samples(torch.as_tensor(item), "a sound"), sound.SAMPLE_RATE
        return sound.fbank(sound.file_sound(samples, rate, self.audio_seconds))


def _picture(item: Any) -> Image.Image:
    return read_image(Path(item)) if isinstance(item, str | Path) else to_picture(item)


def _flat(given: Any, tag: str) -> list[Any]:
    """Items of a batch: one, a list, or a list per prompt (not for videos, where a list is one of pictures)."""
    if given is None:
        return []
    items = list(given) if isinstance(given, list | tuple) else [given]
    if tag == "<video>":
        return items
    return [item for part in items for item in (part if isinstance(part, list | tuple) else [part])]
