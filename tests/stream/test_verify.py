"""What only a whole run of the model shows."""

import pytest
import torch

from tamp_lightning.stream import find_facts
from tamp_lightning.stream.calls import record_calls
from tamp_lightning.stream.verify import check_walk

from .conftest import make_llama

BATCH = {"input_ids": torch.randint(1, 80, (2, 14), generator=torch.Generator().manual_seed(0))}


def test_what_only_a_whole_run_shows_is_refused():
    model = make_llama()
    model.model.layers[1].mlp.register_forward_hook(lambda _m, _a, output: output + torch.rand(()))
    hidden, calls = record_calls(model, "model.layers", BATCH)
    with pytest.raises(ValueError, match="one by one does not give what the model computes"):
        check_walk(model, find_facts(model), BATCH, hidden, calls)
