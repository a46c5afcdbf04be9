"""The table of families in docs/models.md, from the data that the zoo's tests run on: `python -m tests.zoo.table`.

With the answer of `tests.zoo.survey` as an argument, the table of all other multimodal types is written too.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import transformers

from .experts import WITH_EXPERTS
from .families import FAMILIES, Family
from .newer import NEWER

DOCS = Path(__file__).parents[2] / "docs" / "models.md"
ZOO = FAMILIES | NEWER | WITH_EXPERTS

TITLES: dict[str, tuple[str, str]] = {
    "llama": ("Llama", ""),
    "qwen2": ("Qwen2", ""),
    "qwen2_sliding": ("Qwen2 with sliding windows", ""),
    "gemma3_text": ("Gemma 3 text", ""),
    "llava": ("LLaVA-1.5", ""),
    "pixtral": ("Pixtral in LLaVA", ""),
    "llava_next_llama": ("LLaVA-NeXT on Llama", ""),
    "llava_next_mistral": ("LLaVA-NeXT on Mistral", ""),
    "llava_next_qwen2": ("LLaVA-NeXT on Qwen2", ""),
    "llava_next_video": ("LLaVA-NeXT-Video", ""),
    "llava_onevision": ("LLaVA-OneVision", ""),
    "qwen2_vl": ("Qwen2-VL", ""),
    "qwen2_5_vl": ("Qwen2.5-VL", ""),
    "qwen3_vl": (
        "Qwen3-VL",
        "features enter between blocks: the decoder's loop is replayed, so they come along",
    ),
    "internvl": ("InternVL", "its videos are pictures to the model"),
    "idefics3": ("Idefics3", "likewise"),
    "smolvlm": ("SmolVLM", "likewise"),
    "gemma3": ("Gemma 3", "full and sliding blocks; pictures see themselves in both directions, so masks are kept"),
    "mistral3": ("Mistral 3", ""),
    "paligemma": ("PaliGemma", "the prompt sees itself in both directions: give `token_type_ids`"),
    "paligemma2": ("PaliGemma 2", "transformers runs Gemma 2 with eager attention; `amia` needs sdpa"),
    "mllama": (
        "Llama 3.2 Vision (Mllama)",
        "keys and values of cross-attention read picture tiles, so they stay dense. Every sample needs a picture",
    ),
    "qwen2_audio": ("Qwen2-Audio", ""),
    "qwen2_5_omni": (
        "Qwen2.5-Omni thinker",
        "the thinker saved by itself; `tamp inspect` of the whole model, with its talker, says how",
    ),
    "video_llama_3": ("VideoLLaMA3", ""),
    "qwen3_5": (
        "Qwen3.5",
        "linear attention in most blocks: [all tokens count there](#blocks-without-attention)",
    ),
    "qwen3_5_first_full": ("Qwen3.5, an attention block first", "likewise"),
    "lfm2_vl": ("LFM2-VL", "most blocks are convolutions: likewise"),
    "gemma4": ("Gemma 4 31B", "padded pictures are refused if towers are pruned"),
    "gemma4_shared": (
        "Gemma 4 E2B, E4B",
        "late blocks share keys and values, which travel with each sample",
    ),
    "gemma4_moe": ("Gemma 4 26B-A4B", ""),
    "phi4_multimodal": ("Phi-4-multimodal", "towers lie inside of its decoder; they are not listened to"),
    "blip2": ("BLIP-2 on OPT", "every sample needs a picture"),
    "llama4_dense": ("Llama 4 without experts", ""),
    "llama4_moe": (
        "Llama 4",
        "text part; transformers 5.24 itself fails on the whole model's forward. Experts read inputs times gates",
    ),
    "mixtral": ("Mixtral", ""),
    "qwen3_vl_moe": ("Qwen3-VL-MoE", ""),
    "qwen3_5_moe": ("Qwen3.5-MoE", "blocks of linear attention: all tokens count there"),
    "qwen3_next": ("Qwen3-Next", "likewise"),
    "qwen3_omni": ("Qwen3-Omni thinker", "the thinker saved by itself"),
    "glm4v_moe": ("GLM-4.5V", ""),
    "aria": ("Aria", "experts kept and stored as [in, out]"),
    "ernie": ("ERNIE 4.5 VL", "experts of text and of pictures: calibrate with both"),
    "kimi": ("Kimi-K2.5", "latent attention (MLA)"),
    "mistral4": ("Mistral 4", "likewise"),
    "gpt_oss": ("gpt-oss", "gates and ups of experts interleaved; attention with sinks is no sdpa, which `amia` needs"),
    "step3p7": ("Step-3.7", "gates and ups of all experts stored apart"),
    "longcat": ("LongCat-Flash", "two attentions and MLPs in a block; experts that hand tokens on have no matrices"),
    "latent_attention": ("DeepSeek-V3 without experts", "latent attention (MLA), as in Kimi-K2.5"),
}
"""What a family of the zoo is called, and what there is to say about it."""

REFUSED: dict[str, str] = {
    "Gemma 3n": "its blocks read four hidden states side by side, not one `[batch, tokens, width]`",
    "Chameleon": "its blocks return a tuple, as in releases of transformers before 5",
    "IDEFICS of 2023": "pictures are no tokens there but enter between the blocks, and have to be there",
    "JetMoE": "experts, of attention too, are called with sorted tokens, which do not tell whose they are: "
    "`model.exclude: ['input_linear\\.', 'output_linear\\.']` leaves these dense and prunes the rest",
    "GPT-2": "has no `nn.Linear` in its blocks",
    "Zamba 2": "blocks share weights",
    "T5, Florence-2 and all other encoder-decoders": "only decoders are pruned",
}
"""What is refused, and why; tests/zoo/test_refusals.py asks for the reasons."""


def rows() -> list[str]:
    """One line of the table per family that works."""
    lines = ["| family | `model_type` | tried with | method | remarks |", "|---|---|---|---|---|"]
    for key, family in ZOO.items():
        title, remark = TITLES[key]
        lines.append(f"| {title} | {family.config().model_type} | {_tried(family)} | {_method(family)} | {remark} |")
    lines.append(
        "| VideoLLaMA2.1 | videollama2_qwen2 | text, image, video, audio | tamp | native port: "
        "[videollama2.md](videollama2.md) |"
    )
    return lines


def _tried(family: Family) -> str:
    return ", ".join([*(["text"] if family.optional else []), *family.media])


def _method(family: Family) -> str:
    tokens = f"tokens: {family.method['tokens']}" if "tokens" in family.method else "tamp"
    return f"{tokens}, experts dense" if family.exclude else tokens


def refused() -> list[str]:
    """One line of the table per kind that is refused."""
    return ["| family | reason |", "|---|---|", *(f"| {name} | {why} |" for name, why in REFUSED.items())]


def survey(found: dict[str, str]) -> list[str]:
    """One line per multimodal type of transformers that is not in the zoo."""
    known = {family.config().model_type for family in ZOO.values()}
    lines = [f"transformers {transformers.__version__}:", "", "| `model_type` | outcome |", "|---|---|"]
    return [*lines, *(f"| {name} | {_short(text)} |" for name, text in found.items() if name not in known)]


def _short(outcome: str) -> str:
    """An outcome as it stands in the table: what is said of many types is said in few words."""
    if "mixture of experts" in outcome:
        return "its experts have to be [left dense](#mixtures-of-experts)"
    if "does not run on text alone" in outcome:
        return "refused: does not run on text alone, and its default config names no placeholder for media"
    return outcome.replace("|", "/")[:160]


def replaced(text: str, name: str, lines: list[str]) -> str:
    """`text` with what stands between the marks called `name` replaced."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    assert pattern.search(text), name
    return pattern.sub(lambda match: match[1] + "\n".join(lines) + "\n" + match[2], text)


if __name__ == "__main__":
    content = DOCS.read_text()
    content = replaced(replaced(content, "zoo", rows()), "refused", refused())
    for path in sys.argv[1:]:
        content = replaced(content, "survey", survey(json.loads(Path(path).read_text())))
    DOCS.write_text(content)
