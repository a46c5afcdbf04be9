"""Prune a model that is in memory already, and look at what happened.

python examples/model_in_memory.py
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tamp_lightning import Method, PruneResult, prune


def tiny_model() -> LlamaForCausalLM:
    """Stands for yours: any transformers model with a decoder, text-only or multimodal."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=100, **sizes)).eval()


def batches() -> list[dict[str, torch.Tensor]]:
    """What a processor makes of your samples, padded on the right; pixel_values and so on come with the rest."""
    ids = torch.randint(1, 100, (4, 16), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]


def main() -> PruneResult:
    """Prune half of the weights in place with Wanda; Method() alone would be TAMP."""
    method = Method(sparsity=0.5, tokens="all", allocation="uniform", solver="wanda")
    return prune(tiny_model(), batches(), method=method, progress=False, accelerator="cpu")


if __name__ == "__main__":
    result = main()
    print(f"{100 * result.sparsity:.1f} % of the prunable weights are zero now")
    for name, row in result.plan.items():
        print(f"{name}: {row['kept']} of {row['size']} kept, mask {tuple(result.mask(name).shape)}")
