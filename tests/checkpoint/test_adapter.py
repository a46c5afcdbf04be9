"""What differs between families of models."""

from tamp_lightning.checkpoint.adapter import adapter_of
from tamp_lightning.models.adapters import ADAPTERS, Adapter, MllamaAdapter
from tamp_lightning.stream import find_facts

from ..stream.conftest import make_llama


class Odd(Adapter):
    def dense(self, model):
        return ("gate_proj$",)

    def placeholders(self, config):
        return {7: 3}


def test_an_adapter_says_what_differs(monkeypatch):
    monkeypatch.setattr(ADAPTERS, "_members", {})
    ADAPTERS.add("llama", Odd)
    facts = find_facts(make_llama())
    assert facts.modality_ids == {7: 3}
    assert "mlp.gate_proj" not in [linear.name for linear in facts.linears[0]]
    assert len(facts.linears[0]) == 6


def test_built_in_adapters_are_found():
    class Config:
        model_type = "mllama"

    assert isinstance(adapter_of(Config()), MllamaAdapter)
