"""Activations that say nothing are refused in one line that names linear and sample."""

import pytest
import torch

from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.methods.method import Method

from ...conftest import TAMP, WANDA, calibration, run, toys
from ...stream.conftest import make_llama, make_llava


@pytest.mark.parametrize("method", [TAMP, WANDA])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_activation_that_is_not_finite_names_layer_and_sample(method, value):
    model, samples = make_llava(), toys("tpt")
    samples[2].ids[3] = 81  # a token of this sample alone
    with torch.no_grad():
        model.get_input_embeddings().weight[81] = value
    with pytest.raises(ValueError, match=r"layers\.0\.self_attn\.q_proj has NaN or infinite .* sample 2"):
        run(model, calibration(samples, 2), method)


@pytest.mark.parametrize(("method", "place"), [(TAMP, "up_proj has .* outputs"), (WANDA, "down_proj has .* inputs")])
def test_an_activation_that_overflows_further_up_names_that_layer(method, place):
    model = make_llama()
    with torch.no_grad():
        model.get_decoder().layers[1].mlp.up_proj.weight.fill_(3e38)
    with pytest.raises(ValueError, match=rf"layers\.1\.mlp\.{place} .*sample 0"):
        run(model, calibration(toys("tt"), 1), method)


class Skips(torch.nn.Module):
    """A block's MLP that never calls its up projection."""

    def __init__(self, mlp):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj

    def forward(self, x):
        return self.down_proj(self.gate_proj(x))


@pytest.mark.parametrize("method", [TAMP, WANDA])
def test_a_linear_that_no_token_reaches_is_named(method):
    model = make_llama()
    model.get_decoder().layers[1].mlp = Skips(model.get_decoder().layers[1].mlp)
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj saw no calibration token: exclude it"):
        run(model, calibration(toys("tt"), 1), method)


def test_one_token_samples_have_nothing_to_compare():
    batch = {"input_ids": torch.tensor([[5], [6]])}
    with pytest.raises(ValueError, match="nothing to compare in 2 samples"):
        run(make_llama(), CalibrationData.from_batches([batch]), Method())
