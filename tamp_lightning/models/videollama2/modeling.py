"""VideoLLaMA2 (arXiv 2406.07476): SigLIP, STC connector and BEATs before a causal language model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, GenerationMixin, PreTrainedModel, initialization
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from tamp_lightning.compat.modeling import CACHE, CACHE_NAMES
from tamp_lightning.errors import InputError
from tamp_lightning.models.videollama2.beats import Beats, BeatsAttention, WeightNormConv1d
from tamp_lightning.models.videollama2.configuration import Videollama2Config
from tamp_lightning.models.videollama2.connector import StcConnector
from tamp_lightning.models.videollama2.vision import VisionTower

IMAGE, VIDEO, AUDIO = 1, 2, 3  # as in mm_token_type_ids; text is 0
_SOURCES = {IMAGE: "pixel_values", VIDEO: "pixel_values_videos", AUDIO: "input_features"}


class Videollama2PreTrainedModel(PreTrainedModel):
    """What the two model classes share."""

    config_class = Videollama2Config
    config: Videollama2Config
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = list(CACHE_NAMES)  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    # Checkpoints hold the table of position biases once, or a copy of it in every layer.
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        r"audio_tower\.encoder\.layers\.[1-9]\d*\.self_attn\.relative_attention_bias\.weight"
    ]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, WeightNormConv1d):
            std = math.sqrt(4.0 / (module.kernel * module.weight_v.shape[0]))
            initialization.normal_(module.weight_v, std=std)
            initialization.constant_(module.weight_g, std * math.sqrt(module.weight_v[..., 0].numel()))
            initialization.zeros_(module.bias)
        elif isinstance(module, BeatsAttention):
            initialization.ones_(module.grep_a)


class Videollama2Model(Videollama2PreTrainedModel):
    """Towers, projectors and the language model without its head."""

    def __init__(self, config: Videollama2Config) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        self.language_model = AutoModel.from_config(config.text_config)
        if config.mm_vision_tower is not None:
            self.vision_tower = VisionTower(config)
            self.mm_projector = StcConnector(config)
        if config.mm_audio_tower is not None:
            self.audio_tower = Beats(config.audio_config)
            audio_width = config.audio_config.encoder_embed_dim
            self.mm_projector_a = nn.Sequential(nn.Linear(audio_width, width), nn.GELU(), nn.Linear(width, width))
        self.post_init()

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """Tokens of pictures: each is shown as a video of ``num_frames`` equal frames.

        Args:
            pixel_values: [B,3,H,W].

        Returns:
            [B,tokens,width].
        """
        patches = self.vision_tower(pixel_values)
        return self.mm_projector(patches.unsqueeze(1).expand(-1, self.config.num_frames, -1, -1))

    def video_features(self, pixel_values_videos: Tensor) -> Tensor:
        """[B,frames,3,H,W] -> tokens of videos [B,tokens,width]."""
        patches = self.vision_tower(pixel_values_videos.flatten(0, 1))
        return self.mm_projector(patches.unflatten(0, pixel_values_videos.shape[:2]))

    def audio_features(self, input_features: Tensor) -> Tensor:
        """[B,frames,mel bins] -> tokens of sound [B,tokens,width]."""
        return self.mm_projector_a(self.audio_tower(input_features))

    def encode(self, given: Mapping[str, Tensor | None]) -> dict[int, Tensor]:
        """Modality -> tokens [n,width] of all its items, one after the other.

        Raises:
            InputError: an input needs a tower that this checkpoint does not have.
        """
        encoders = {IMAGE: self.image_features, VIDEO: self.video_features, AUDIO: self.audio_features}
        features = {}
        for modality, name in _SOURCES.items():
            if (value := given[name]) is None:
                continue
            tower = "audio_tower" if modality == AUDIO else "vision_tower"
            if not hasattr(self, tower):
                raise InputError(f"{name} is given, but this model has no {tower}")
            features[modality] = encoders[modality](value).flatten(0, 1)
        return features

    def token_types(self, input_ids: Tensor, given: Tensor | None) -> Tensor:
        """[B,n] modality of every token: ``mm_token_type_ids`` where given, else by the placeholder ids."""
        # Some versions of transformers still give the prompt's types when one more token is generated.
        if given is not None and given.shape == input_ids.shape:
            return given
        types = torch.zeros_like(input_ids)
        for modality, name in ((IMAGE, "image"), (VIDEO, "video"), (AUDIO, "audio")):
            types[input_ids == getattr(self.config, f"{name}_token_id")] = modality
        return types

    def embed(self, input_ids: Tensor, types: Tensor, features: Mapping[int, Tensor]) -> Tensor:
        """Token embeddings with the features where the placeholders stand.

        Args:
            input_ids: [B,n]; ids of placeholders are not looked up, so they need not be in the vocabulary.
            types: [B,n] modality of every token.
            features: modality -> [tokens,width], in the order in which the placeholders stand in the batch.

        Returns:
            [B,n,width].

        Raises:
            InputError: the number of placeholders of a modality is not that of its features.
        """
        embeds = self.get_input_embeddings()(input_ids.masked_fill(types != 0, 0))
        for modality, name in _SOURCES.items():
            places = types == modality
            value = features.get(modality)
            wanted, found = int(places.sum()), 0 if value is None else len(value)
            if wanted != found:
                raise InputError(f"input_ids has {wanted} placeholders for {name}, but its features are {found}")
            if value is not None:
                embeds = embeds.masked_scatter(places.unsqueeze(-1), value.to(embeds.device, embeds.dtype))
        return embeds

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        mm_token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        input_features: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run towers and language model.

        Args:
            input_ids: [B,n], one placeholder per feature token.
            attention_mask: [B,n], or a ready 4-d mask.
            position_ids: [B,n]; 0..n-1 if not given.
            inputs_embeds: [B,n,width] instead of ``input_ids``; then nothing is spliced.
            mm_token_type_ids: [B,n], 0 text, 1 image, 2 video, 3 audio.
            pixel_values: [images,3,H,W].
            pixel_values_videos: [videos,frames,3,H,W].
            input_features: [sounds,frames,mel bins], raw log mel filter banks.
            **kwargs: passed to the language model, the cache of earlier tokens among it.

        Raises:
            InputError: not exactly one of ``input_ids`` and ``inputs_embeds``, or placeholders and features differ.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("give exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            assert input_ids is not None
            given = {"pixel_values": pixel_values, "pixel_values_videos": pixel_values_videos}
            features = self.encode({**given, "input_features": input_features})
            inputs_embeds = self.embed(input_ids, self.token_types(input_ids, mm_token_type_ids), features)
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **kwargs,
        )


class Videollama2Qwen2ForCausalLM(Videollama2PreTrainedModel, GenerationMixin):
    """VideoLLaMA2 with its head; the name is the official one, which config.json carries, whatever the text model."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: Videollama2Config) -> None:
        super().__init__(config)
        self.model = Videollama2Model(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        return self.lm_head

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mm_token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        input_features: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [B,n,vocab], and the loss if ``labels`` are given.

        What is not explained here goes to :meth:`Videollama2Model.forward`; generation wants it named.

        Args:
            labels: [B,n] token ids, -100 where none counts; the shift by one is done here.
            logits_to_keep: compute only so many logits, the last ones; 0 = all.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            mm_token_type_ids=mm_token_type_ids,
            pixel_values=pixel_values,
            pixel_values_videos=pixel_values_videos,
            input_features=input_features,
            **kwargs,
        )
        logits = self.lm_head(outputs.last_hidden_state[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1])
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: outputs.get(CACHE)},
        )
