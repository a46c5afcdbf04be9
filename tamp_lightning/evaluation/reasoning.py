"""What a chat template says of reasoning, and replies with the marks of it."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from tamp_lightning.metrics.reasoning import SIGNS, opener

SWITCH = "enable_thinking"
_SWITCH = re.compile(rf"\b{SWITCH}\b")


def template_options(processor: Any, thinking: bool) -> dict[str, bool]:
    """What the chat template is to be told: the switch of reasoning, if it has one."""
    template = getattr(processor, "chat_template", None)
    texts = template.values() if isinstance(template, dict) else [template]
    has_switch = any(isinstance(text, str) and _SWITCH.search(text) for text in texts)
    return {SWITCH: thinking} if has_switch else {}


def opened_reasoning(processor: Any, thinking: bool) -> str:
    """The mark of reasoning that the template leaves open where the reply begins, "" for most models."""
    if getattr(processor, "chat_template", None) is None:
        return ""
    asked = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
    options = template_options(processor, thinking)
    return opener(str(processor.apply_chat_template(asked, add_generation_prompt=True, **options)))


def whole_replies(tokenizer: Any, tokens: Tensor) -> list[str]:
    """Replies [B] of tokens [B,n] without special tokens, but with the marks of reasoning, special or not."""
    special = set(tokenizer.all_special_tokens)
    if not special & set(SIGNS):
        return tokenizer.batch_decode(tokens, skip_special_tokens=True)
    replies = tokenizer.batch_decode(tokens, skip_special_tokens=False)
    for token in special - set(SIGNS):
        replies = [reply.replace(token, "") for reply in replies]
    return replies
