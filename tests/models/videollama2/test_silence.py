"""Which tokens of a sound are nothing but the silence it is padded with."""

import torch

from tamp_lightning.models.videollama2 import Videollama2Processor, sound

from .conftest import make_tokenizer, tiny_config


def test_patches_behind_the_sound_are_silent():
    samples = torch.zeros(16000)
    samples[:8000] = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))
    banks = sound.fbank(samples)[None]
    silent = sound.silent_patches(banks, 16).unflatten(1, (-1, 8))
    # frame k reads samples 160 k to 160 k + 399: the last one with sound is frame 49, in the fourth patch of 16
    assert silent.shape == (1, 98 // 16, 8)
    assert not silent[0, :4].any()
    assert silent[0, 4:].all()


def test_only_padding_silence_of_sounds_is_marked():
    config = tiny_config()
    processor = Videollama2Processor(make_tokenizer(), **Videollama2Processor.sizes(config, 1.0))
    loud = torch.full((6000,), 0.1) * torch.randn(6000, generator=torch.Generator().manual_seed(0))
    inputs = processor(["<audio>hello", "hi"], audio=[loud])
    silent, types = processor.silent_tokens(inputs), inputs["mm_token_type_ids"]
    steps = processor.audio_tokens // (128 // processor.audio_patch)
    of_sound = silent[types == 3].view(steps, -1)
    first = 6000 // 160 // processor.audio_patch + 1  # the step after the last one that hears a sample
    assert of_sound.tolist() == [[step >= first] * of_sound.shape[1] for step in range(steps)]
    assert 0 < first < steps
    assert not silent[types != 3].any()
    assert not processor.silent_tokens(processor("hello")).any()
