"""Several questions about one picture in one sequence, none of which can see another.

The picture and the system prompt are a shared prefix (segment 0); each question with its answer is a segment of its
own, attends to the prefix and to itself, and starts at the position that follows the prefix. Every token therefore
gets exactly the hidden state it would get in a sequence with that question alone, at a fraction of the cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LlavaNextProcessor

from tamp_lightning.errors import InputError

IGNORE = -100
PADDING = -1


@dataclass(frozen=True)
class Packed:
    """One picture with its questions; every tensor has one entry per token, `labels` being shifted already."""

    input_ids: Tensor
    segments: Tensor
    position_ids: Tensor
    labels: Tensor
    """The token that follows, where it belongs to an answer (its end mark included); -100 elsewhere."""
    first: Tensor
    """[questions]: the position whose next token is the answer's first."""
    pixels: dict[str, Tensor]


def conversation(question: str, answer: str, kind: str = "image") -> list[dict]:
    """One user turn, a picture (or another `kind` of medium) and then the question, and the assistant's answer."""
    return [
        {"role": "user", "content": [{"type": kind}, {"type": "text", "text": question}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]


def _common_prefix(sequences: Sequence[Tensor]) -> int:
    shortest = min(len(s) for s in sequences)
    first = sequences[0][:shortest]
    same = torch.stack([s[:shortest] == first for s in sequences]).all(0)
    return int(same.long().cumprod(0).sum())


def pack(processor: LlavaNextProcessor, picture: Image.Image, turns: Sequence[tuple[str, str]]) -> Packed:
    """Tokenise (question, answer) pairs about one picture after their common prefix.

    Raises:
        InputError: there is no question, or the chat template changes a prompt once its answer follows.
    """
    chats = [conversation(question, answer) for question, answer in turns]
    texts = [processor.apply_chat_template(chat) for chat in chats[:1]]
    encoded = processor(text=texts, images=[picture], return_tensors="pt") if texts else {}
    pixels = {k: v for k, v in encoded.items() if k not in ("input_ids", "attention_mask")}
    count = int((encoded["input_ids"] == processor.image_token_id).sum()) if texts else 0
    # the picture is processed once; its placeholder is widened by hand
    return pack_chats(processor, chats, {processor.image_token: processor.image_token * count}, pixels)


def pack_chats(
    processor: Any, chats: Sequence[list[dict]], wide: Mapping[str, str], pixels: dict[str, Tensor]
) -> Packed:
    """Tokenise conversations of one turn about the same medium after their common prefix.

    Args:
        processor: its chat template and tokenizer are used.
        chats: from `conversation`.
        wide: what a medium's tag becomes, one placeholder per feature token.
        pixels: the medium's model inputs.

    Raises:
        InputError: there is no conversation, or the chat template changes a prompt once its answer follows.
    """
    if not chats:
        raise InputError("no question to pack: give at least one (question, answer) pair")

    def tokenise(text: str) -> Tensor:
        for tag, placeholders in wide.items():
            text = text.replace(tag, placeholders)
        return processor.tokenizer(text, return_tensors="pt")["input_ids"][0]

    tokens = [tokenise(processor.apply_chat_template(chat)) for chat in chats]
    prompts = [tokenise(processor.apply_chat_template(chat[:1], add_generation_prompt=True)) for chat in chats]
    for chat, whole, prompt in zip(chats, tokens, prompts, strict=True):
        if not torch.equal(whole[: len(prompt)], prompt):
            question = chat[0]["content"][-1]["text"]
            raise InputError(f"chat template changes the prompt of {question!r} when the answer follows it")
    shared = min(_common_prefix(tokens), *(len(p) - 1 for p in prompts))
    return _join(tokens, [len(p) for p in prompts], shared, processor.tokenizer.eos_token_id, pixels)


def _join(tokens: list[Tensor], prompts: list[int], shared: int, end: int, pixels: dict[str, Tensor]) -> Packed:
    ids, segments, positions = [tokens[0][:shared]], [torch.zeros(shared).long()], [torch.arange(shared)]
    labels, first, offset = [torch.full((shared,), IGNORE)], [], shared
    for k, (row, prompt) in enumerate(zip(tokens, prompts, strict=True), start=1):
        stop = prompt + int((row[prompt:] == end).long().argmax()) + 1  # the end mark closes the answer
        label = torch.full((stop - shared,), IGNORE)
        label[prompt - 1 - shared : -1] = row[prompt:stop]
        ids.append(row[shared:stop])
        labels.append(label)
        segments.append(torch.full((stop - shared,), k))
        positions.append(torch.arange(shared, stop))
        first.append(offset + prompt - 1 - shared)
        offset += stop - shared
    joined = [torch.cat(parts) for parts in (ids, segments, positions, labels)]
    return Packed(joined[0], joined[1], joined[2], joined[3], torch.tensor(first), pixels)


def packed_mask(segments: Tensor) -> Tensor:
    """Who may attend to whom: causal, own segment or prefix; padding (-1) sees and is seen by itself alone.

    Args:
        segments: [B,n] int64.

    Returns:
        [B,1,n,n] bool, True = may attend.
    """
    n = segments.shape[1]
    query, key = segments[:, :, None], segments[:, None, :]
    allowed = ((key == 0) | (key == query)) & (key != PADDING) & (query != PADDING)
    causal = torch.ones(n, n, dtype=torch.bool, device=segments.device).tril()
    itself = torch.eye(n, dtype=torch.bool, device=segments.device)
    return ((allowed & causal) | itself)[:, None]


def collate(samples: Sequence[Packed], pad: int = 0) -> dict[str, Tensor]:
    """Right-padded batch of packed samples: model inputs, plus `segments`, `labels` and `answers` [questions,2]
    (row in the batch, position whose next token is the answer's first).
    """

    def padded(name: str, value: int) -> Tensor:
        return pad_sequence([getattr(s, name) for s in samples], batch_first=True, padding_value=value)

    segments = padded("segments", PADDING)
    rows = torch.cat([torch.full((len(s.first),), b) for b, s in enumerate(samples)])
    pixels = {k: torch.cat([s.pixels[k] for s in samples]) for k in samples[0].pixels}
    return {
        "input_ids": padded("input_ids", pad),
        "position_ids": padded("position_ids", 0),
        "attention_mask": packed_mask(segments),
        "segments": segments,
        "labels": padded("labels", IGNORE),
        "answers": torch.stack([rows, torch.cat([s.first for s in samples])], dim=1),
        **pixels,
    }
