"""Clips as the bed's processor sees them, and their questions in packed sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from tamp_lightning.data.packing import Packed, conversation, pack_chats
from tamp_lightning.testbeds.clip_files import draw, frame_count, waveform
from tamp_lightning.testbeds.clips import Clip


class AudioVisualProcessor(Protocol):
    """What is asked of VideoLLaMA2's processor."""

    tokenizer: Any
    video_token: str
    audio_token: str
    video_tokens: int
    audio_tokens: int
    num_frames: int

    def __call__(self, text: str, *, videos: list[Any]) -> Mapping[str, Tensor]:
        """Model inputs."""

    def apply_chat_template(self, conversation: list[dict], **kwargs: Any) -> str:
        """A conversation as text."""


FEATURES = ("pixel_values_videos", "input_features")


def in_memory(clip: Clip) -> dict[str, Any]:
    """The clip as the processor takes it, without a file and so without what codecs do to it."""
    frames = [draw(clip, k) for k in range(frame_count(clip))]
    return {"video": frames, "audio": torch.from_numpy(waveform(clip))}


def features(processor: AudioVisualProcessor, video: Any) -> dict[str, Tensor]:
    """Model inputs of one video with sound: pixels [1,frames,3,s,s] and filter banks [1,frames,128]."""
    encoded = processor("<video>", videos=[video])
    return {name: encoded[name] for name in FEATURES}


def pack_video(processor: AudioVisualProcessor, pixels: dict[str, Tensor], turns: Sequence[tuple[str, str]]) -> Packed:
    """Tokenise (question, answer) pairs about one video with sound after their common prefix.

    Args:
        processor: the model's.
        pixels: from `features`.
        turns: pairs of a question and an answer.

    Raises:
        InputError: there is no question.
    """
    video, sound = processor.video_token, processor.audio_token
    wide = {video: video * processor.video_tokens + sound * processor.audio_tokens}
    return pack_chats(processor, [conversation(q, a, "video") for q, a in turns], wide, pixels)
