"""An adapter of your own: what of a family of models is never pruned, and which token ids stand for media.

The name given to `register` is the `model_type` of the family's `config.json`. Here Llama's output projections of
attention stay dense. In a recipe:

    plugins: [examples/own_adapter.py]      # this file's code then runs
    method: {tokens: all, allocation: uniform}
"""

from collections.abc import Sequence

from transformers import PreTrainedModel

from tamp_lightning.models.adapters import ADAPTERS, Adapter


@ADAPTERS.register("llama")
class KeepOutputs(Adapter):
    """Llama without its attention's output projections."""

    def dense(self, model: PreTrainedModel) -> Sequence[str]:
        """Patterns on names of linears, relative to their block."""
        return [*super().dense(model), r"^self_attn\.o_proj$"]
