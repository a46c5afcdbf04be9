"""Every multimodal type that the installed transformers knows, on its own default config: `python -m tests.zoo.survey`.

No weights: the model is built on the meta device with two decoder blocks, its blocks and linears are found, and its
decoder is rehearsed. What works is tried in the zoo; this says of all others how far one gets.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import AutoModelForImageTextToText, AutoModelForMultimodalLM, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tamp_lightning.checkpoint.facts import find_facts
from tamp_lightning.stream.rehearsal import rehearse

BLOCKS = 2


def types() -> list[str]:
    """Model types of the multimodal mappings, in order."""
    known = {
        config for auto in (AutoModelForImageTextToText, AutoModelForMultimodalLM) for config in auto._model_mapping
    }
    return sorted(name for name, config in CONFIG_MAPPING.items() if config in known)


def outcome(name: str) -> str:
    """What happens to a family with its default config: accepted, or the reason why not."""
    try:
        config = _shrunk(CONFIG_MAPPING[name]())
        auto = next(
            a for a in (AutoModelForImageTextToText, AutoModelForMultimodalLM) if type(config) in a._model_mapping
        )
        kind = auto._model_mapping[type(config)]
        kind = kind[0] if isinstance(kind, tuple) else kind
        with init_empty_weights(include_buffers=False):
            model = kind._from_config(config, dtype=torch.bfloat16).eval()
    except Exception as error:  # missing libraries, or defaults that do not fit each other: not ours
        return f"cannot be built on its defaults here: {_line(error)}"
    try:
        facts = rehearse(model, find_facts(model))
    except ValueError as error:
        return f"refused: {_line(error)}"
    without = [k for k in range(len(facts.linears)) if not facts.attends(k)]
    return "accepted" + (", all tokens count in blocks without attention" if without else "")


def _shrunk(config: PreTrainedConfig) -> PreTrainedConfig:
    text = config.get_text_config()
    for key in ("layer_types", "mlp_layer_types"):
        if isinstance(getattr(text, key, None), list):
            setattr(text, key, getattr(text, key)[-BLOCKS:])
    if isinstance(getattr(text, "num_hidden_layers", None), int):
        text.num_hidden_layers = BLOCKS
    return config


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def main(out: Path) -> Iterator[dict[str, Any]]:
    """Write the outcome of every type as JSON, one after the other."""
    found: dict[str, str] = {}
    for name in types():
        found[name] = outcome(name)
        out.write_text(json.dumps(found, indent=1) + "\n")
        print(name, found[name], flush=True)
    yield found


if __name__ == "__main__":
    list(main(Path(sys.argv[1])))
