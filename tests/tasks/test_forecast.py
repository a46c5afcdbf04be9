"""Forecasts are the sums that docs/memory.md writes down."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import MixtralConfig, MixtralForCausalLM

from tamp_lightning.checkpoint.facts import find_facts
from tamp_lightning.cli.run import inspect_checkpoint
from tamp_lightning.errors import InputError
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.options import Correction, Reconstruct, Refit
from tamp_lightning.tasks.forecast import Machine, Shape, forecast, shape_of

from ..conftest import TAMP, WANDA, Toy, calibration, run
from ..stream.conftest import make_llama, save
from ..zoo.experts import WITH_EXPERTS

SHAPE = Shape(
    blocks=4, hidden=100, weights=4_000, active=2_000, largest_block=1_000, largest_linear=300, widest=20, outside=500
)
ONE = Machine(tflops=1e-6, disk_gb=1e-6, bus_gb=1e-6, wire_gb=1e-6, solve_ns=1e6, samples=2, tokens=10)
"""A million operations and a thousand bytes a second, a thousand weights a second."""
OPERATIONS = 20 * (2 * 2_000 + 2 * 4 * 10 * 100)
"""Of a pass: 20 tokens."""
STATE = 20 * 100 * 2


def test_seconds_are_passes_reading_moving_solving_and_writing():
    found = forecast(SHAPE, ONE, TAMP).seconds
    carried = (8_000 + 8 * STATE) / 1e3 + 8_000 / 1e3
    assert found["measure"] == pytest.approx(OPERATIONS / 1e6 + carried)
    assert found["prune"] == pytest.approx(2 * OPERATIONS / 1e6 + carried)
    assert (found["solve"], found["send"], found["write"]) == pytest.approx((4, 0, 9))
    assert forecast(SHAPE, ONE, WANDA).seconds["measure"] == 0
    on_cpu = forecast(SHAPE, replace(ONE, bus_gb=0), WANDA)
    assert on_cpu.seconds["prune"] == pytest.approx(2 * OPERATIONS / 1e6 + 8)
    assert on_cpu.traffic["over the bus"] == 0


def test_processes_share_passes_and_cache_but_neither_solving_nor_reading():
    one, four = (forecast(SHAPE, replace(ONE, processes=n, bus_gb=0), WANDA) for n in (1, 4))
    assert four.seconds["prune"] == pytest.approx((one.seconds["prune"] - 8) / 4 + 8)
    assert four.seconds["solve"] == one.seconds["solve"]
    assert four.seconds["send"] == pytest.approx((8_000 + 4_000) / 1e3)
    assert four.memory["activation cache"] == one.memory["activation cache"] / 4 == STATE / 4
    assert four.memory["blocks"] == one.memory["blocks"] == 3.5 * 2_000
    assert forecast(SHAPE, ONE, WANDA).memory["blocks"] == 4.5 * 2_000  # one is read ahead


def test_hessians_and_corrections_cost_their_matrices_and_a_second_cache():
    hessian = Method(tokens="all", allocation="uniform", solver="sparsegpt")
    corrected = Method(tokens="all", allocation="uniform", solver="sparsegpt", correction=Correction(0.5))
    assert forecast(SHAPE, ONE, WANDA).memory["second moments"] == 0
    assert forecast(SHAPE, ONE, hessian).memory["second moments"] == 4 * 20**2
    assert forecast(SHAPE, ONE, replace(TAMP, solver="sparsegpt")).memory["second moments"] == 8 * 20**2
    found = forecast(SHAPE, ONE, corrected).memory
    assert (found["second moments"], found["activation cache"]) == (8 * 20**2, 2 * STATE)


def test_refit_and_reconstruction_hold_copies_and_a_sample_of_activations():
    def memory(**options):
        found = forecast(replace(SHAPE, kept=700), ONE, replace(WANDA, **options)).memory
        names = ("second moments", "refit", "reconstruction", "its activations, of a sample", "activation cache")
        return [found[name] for name in names]

    assert memory() == [0, 0, 0, 0, STATE]
    assert memory(refit=Refit(steps=1)) == [4 * 20**2, 24 * 300 + 4 * 20**2, 0, 0, STATE]
    assert memory(reconstruct=Reconstruct(1)) == [0, 0, (16 + 2 * 2) * 1_000, 700 * 2 * 10, STATE]
    assert memory(reconstruct=Reconstruct(1, inputs="dense"))[-1] == 3 * STATE


def test_a_step_for_attention_and_one_for_the_mlp_cost_four_passes():
    found = forecast(SHAPE, ONE, replace(WANDA, reconstruct=Reconstruct(3))).seconds["reconstruct, a sample a step"]
    assert found == pytest.approx(3 * 4 * OPERATIONS / 2 / 1e6)
    samples, counted = [Toy(torch.arange(1, 19))] * 2, []  # the second is held out
    for steps in (4, 8):
        model = make_llama(hidden_size=64, intermediate_size=224, num_key_value_heads=1)
        with FlopCounterMode(display=False) as counter:
            run(model, calibration(samples, 1), replace(WANDA, reconstruct=Reconstruct(steps, 1e-6)))
        counted.append(counter.get_total_flops())
    a_pass = 2 * 18 * shape_of(model, find_facts(model)).weights
    # to look at the held-out batch after each step costs the passes of two blocks and their dense copies, in part
    assert 4 * 4 * a_pass < counted[1] - counted[0] < 4 * 8 * a_pass


def test_a_head_that_is_the_embeddings_counts_once():
    found = [shape_of(model, find_facts(model)) for model in (make_llama(), make_llama(tie_word_embeddings=True))]
    assert found[1].head == 0
    assert found[1].outside == found[0].outside


def test_of_a_mixture_a_token_passes_the_experts_that_it_is_sent_to():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = MixtralConfig(vocab_size=50, intermediate_size=24, num_local_experts=4, num_experts_per_tok=1, **sizes)
    model = MixtralForCausalLM(config).eval()
    experts = 2 * 4 * 3 * 16 * 24
    found = shape_of(model, find_facts(model))
    assert found.weights - found.active == experts - experts // 4
    assert found.kept == 4 * (16 + 16) + 3 * (16 + 24)


@pytest.mark.parametrize("name", ["aria", "gemma4_moe", "kimi", "llama4_moe"])
def test_whatever_a_config_calls_the_number_of_experts_of_a_token(name):
    model = WITH_EXPERTS[name].make()
    experts = sum(value.numel() for key, value in model.named_parameters() if ".experts." in key)
    found = shape_of(model, find_facts(model))
    assert found.weights - found.active == experts - experts // 2 > 0


def test_the_shape_of_a_model():
    model = make_llama()
    found = shape_of(model, find_facts(model))
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    inside = sum(size for name, size in sizes.items() if ".layers." in name)
    assert (found.blocks, found.hidden, found.widest, found.largest_linear) == (3, 32, 48, 32 * 48)
    assert (found.weights, found.active) == (inside, inside)
    assert found.head == sizes["lm_head.weight"]
    assert found.outside == sum(sizes.values()) - inside - found.head
    assert found.largest_block == inside // 3
    # queries and attention's outputs 32 wide, keys and values as their matrices are, the MLP 48
    linears = [value.shape for name, value in model.model.layers[0].named_parameters() if "norm" not in name]
    assert found.kept == sum(out + width for out, width in linears)


def test_what_steps_back_through_a_block_need_is_about_what_its_linears_read_and_put_out():
    model = make_llama(hidden_size=64, intermediate_size=224)
    shape, tokens = shape_of(model, find_facts(model)), 200
    block, hidden = model.model.layers[0], torch.randn(1, tokens, 64)
    own, saved = {value.data_ptr() for value in block.parameters()}, {}

    def note(value):
        storage = value.untyped_storage()
        saved.update({storage.data_ptr(): storage.nbytes()} if storage.data_ptr() not in own else {})
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        kept = block(hidden, position_embeddings=model.model.rotary_emb(hidden, torch.arange(tokens)[None]))
    assert kept.requires_grad
    assert sum(saved.values()) == pytest.approx(4 * tokens * shape.kept, rel=0.3)


def test_the_command_prints_a_plan_if_it_is_asked_for_one(tmp_path, capsys):
    folder = str(save(make_llama(), tmp_path / "source"))
    wanda = ["--method.tokens=all", "--method.allocation=uniform"]
    inspect_checkpoint([folder, *wanda])
    assert "over the bus" not in capsys.readouterr().out
    inspect_checkpoint(
        [folder, "--plan", "--machine.processes=4", "--machine.samples=16", "--machine.tokens=100", *wanda]
    )
    printed = capsys.readouterr().out
    assert "16 samples of 100 tokens, 4 processes" in printed
    cache = next(line for line in printed.splitlines() if "activation cache" in line)
    assert f"{16 * 100 * 32 * 2 / 4 / 2**20:.1f} MiB" in cache


@pytest.mark.parametrize("name", ["tflops", "processes", "samples"])
def test_a_rate_of_zero_is_refused(name):
    with pytest.raises(InputError, match=rf"machine\.{name} is 0"):
        Machine(**{name: 0})
