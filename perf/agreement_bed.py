"""Sets of tokens that AMIA picks in smol-llava-next, beside those of a literal AMIA in float64 on the same outputs.

python perf/agreement_bed.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from literal_amia import literal_amia
from measure import save
from speed_ops import overlap, picked
from speed_run import calibration
from torch import Tensor

from tamp_lightning.cli.run import quieten
from tamp_lightning.evaluation.whole import load_whole
from tamp_lightning.methods.tokens import Amia, TokenContext
from tamp_lightning.testbeds.checkpoints import resolve

SAMPLES, BLOCKS = 8, (0, 9, 19, 29)
RULES: dict[str, tuple[Amia, torch.dtype]] = {
    "exact, bfloat16 outputs": (Amia(), torch.bfloat16),
    "exact, the same in float32": (Amia(), torch.float32),
    "per: input": (Amia(per="input"), torch.bfloat16),
    "per: block": (Amia(per="block"), torch.bfloat16),
    "max_tokens: 64": (Amia(max_tokens=64), torch.bfloat16),
    "max_tokens: 128": (Amia(max_tokens=128), torch.bfloat16),
}
Outputs = list[dict[str, Tensor]]


@torch.no_grad()
def observe() -> list[tuple[Outputs, Tensor, Tensor]]:
    """Per sample and block: outputs of the linears by what they read, last row of the attention, modality."""
    folder = resolve("smol-llava-next")
    model = load_whole(folder, None)
    model.set_attn_implementation("eager")
    decoder, found = model.get_decoder(), []
    for batch in calibration(folder, SAMPLES).loader:
        for row in range(len(batch["input_ids"])):
            length = int(batch["valid"][row].sum())
            inputs = {"input_ids": batch["input_ids"][row : row + 1, :length]}
            inputs |= {key: batch[key][row : row + 1] for key in ("pixel_values", "image_sizes")}
            groups: dict[int, dict[int, dict[str, Tensor]]] = {k: {} for k in BLOCKS}
            handles, alive = [], []
            for k in BLOCKS:
                for name, module in decoder.layers[k].named_modules():
                    if isinstance(module, torch.nn.Linear):
                        handles.append(module.register_forward_hook(_keep(groups[k], name, alive)))
            rows = model(**inputs, output_attentions=True, use_cache=False).attentions
            modality = (inputs["input_ids"][0] == model.config.image_token_id).long()
            for handle in handles:
                handle.remove()
            for k in BLOCKS:
                found.append((list(groups[k].values()), rows[k][0, :, -1].float().mean(0), modality))
    return found


def _keep(groups: dict[int, dict[str, Tensor]], name: str, alive: list[Tensor]) -> Callable[..., None]:
    def hook(_: object, args: tuple[Tensor, ...], output: Tensor) -> None:
        alive.append(args[0])  # so that no other input gets its id
        groups.setdefault(id(args[0]), {})[name] = output

    return hook


def main() -> None:
    quieten()
    observed, reference = observe(), []
    for groups, attention, modality in observed:
        linears = {name: x[0].double() for group in groups for name, x in group.items()}
        image = modality == 1
        reference.append({name: set(literal_amia(x, attention.double(), image)) for name, x in linears.items()})
    rows: list[dict[str, Any]] = []
    for label, (rule, dtype) in RULES.items():
        overlaps = []
        for (groups, attention, modality), expected in zip(observed, reference, strict=True):
            seen = TokenContext(
                modality[None], torch.ones_like(modality[None], dtype=torch.bool), attention=attention[None]
            )
            sets = rule.by_linear(seen, [{n: x.to(dtype) for n, x in group.items()} for group in groups])
            overlaps += [overlap(picked(sets[name][0]), own) for name, own in expected.items()]
        same = sum(value == 1 for value in overlaps)
        rows.append({"rule": label, "sets": len(overlaps), "same": same, "mean overlap": sum(overlaps) / len(overlaps)})
    save("agreement_bed", rows)


if __name__ == "__main__":
    main()
