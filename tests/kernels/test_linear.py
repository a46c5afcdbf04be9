"""Compressed linears beside the ordinary ones that they replace."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from tamp_lightning.kernels import cpu, product
from tamp_lightning.kernels.form import Bitmask
from tamp_lightning.kernels.linear import CompressedLinear, compress_linears, held_by

from .conftest import DTYPES, pruned
from .quantised import whole_numbers


def pair(dtype, shape=(130, 200), bias=True):
    """An ordinary linear with zeros, and the compressed one."""
    dense = nn.Linear(shape[1], shape[0], bias=bias).to(dtype)
    dense.weight.data = pruned(*shape, 0.5, dtype)
    return dense, CompressedLinear(Bitmask.of_dense(dense.weight.detach()), copy.deepcopy(dense.bias))


@pytest.fixture(params=["kernel", "plain torch"])
def way(request, monkeypatch, instructions):
    if request.param == "plain torch":
        monkeypatch.setattr(cpu, "cpu_library", lambda: None)
    return request.param


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("size", [(), (1,), (8,), (9,), (2, 30), (0,)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_are_those_of_the_expanded_linear(dtype, size, bias, way, monkeypatch):
    monkeypatch.setattr(product, "TILE", 7 * 200)
    dense, compressed = pair(dtype, bias=bias)
    inputs = torch.randn(*size, 200).to(dtype)
    out = compressed(inputs)
    exact = functional.linear(inputs.double(), dense.weight.double(), dense.bias.double() if bias else None)
    assert out.dtype == dtype
    assert out.shape == (*size, 130)
    sizes = inputs.double().abs() @ dense.weight.double().abs().T + (dense.bias.double().abs() if bias else 0)
    bound = 201 * torch.finfo(torch.float32).eps * sizes + torch.finfo(dtype).eps * exact.abs()
    assert bool(((out.double() - exact).abs() <= bound).all())


@pytest.mark.parametrize("size", [3, 20])
def test_gradients_pass_through_and_reach_the_bias(size, way, monkeypatch):
    monkeypatch.setattr(product, "TILE", 7 * 200)
    dense, compressed = pair(torch.float32)
    one, two = (torch.randn(size, 200, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    dense(one).square().sum().backward()
    compressed(two).square().sum().backward()
    assert torch.allclose(one.grad, two.grad, rtol=1e-4, atol=1e-4)
    assert torch.allclose(dense.bias.grad, compressed.bias.grad, rtol=1e-4, atol=1e-4)
    assert [name for name, _ in compressed.named_parameters()] == ["bias"]


def test_the_state_dict_is_the_dense_one_and_is_taken_back():
    dense, compressed = pair(torch.bfloat16)
    state = compressed.state_dict()
    assert sorted(state) == ["bias", "weight"]
    assert all(torch.equal(state[key], value) for key, value in dense.state_dict().items())
    other, _ = pair(torch.bfloat16)
    other.weight.data.mul_(pruned(130, 200, 0.5, torch.bfloat16, seed=1) != 0)
    compressed.load_state_dict(other.state_dict())
    assert torch.equal(compressed.weight, other.weight)
    assert compressed.values.numel() == int((other.weight != 0).sum())
    with pytest.raises(RuntimeError, match=r"weight has shape \[3, 200\], expected \[130, 200\]"):
        compressed.load_state_dict({"weight": torch.zeros(3, 200), "bias": dense.bias})
    with pytest.raises(RuntimeError, match="Missing key"):
        compressed.load_state_dict({"bias": dense.bias})


def test_casting_and_copying():
    dense, compressed = pair(torch.float32)
    inputs = torch.randn(2, 200)
    compressed(inputs)
    moved = copy.deepcopy(compressed).to(torch.bfloat16)
    assert moved.values.dtype == torch.bfloat16
    assert moved.mask.dtype == torch.uint8
    assert torch.equal(moved(inputs.bfloat16()), pair_of(dense.to(torch.bfloat16))(inputs.bfloat16()))
    assert compressed.values.dtype == torch.float32


def pair_of(dense):
    return CompressedLinear(Bitmask.of_dense(dense.weight.detach()), dense.bias)


def test_damage_is_found_before_the_first_product():
    _, compressed = pair(torch.float32)
    compressed.mask[17, 3] ^= 4
    with pytest.raises(ValueError, match="the mask keeps"):
        compressed(torch.randn(1, 200))
    _, compressed = pair(torch.float32)
    compressed.values = compressed.values[:-1].clone()
    with pytest.raises(ValueError, match="the mask keeps"):
        compressed(torch.randn(1, 200))
    _, compressed = pair(torch.float32)
    compressed(torch.randn(1, 200))
    compressed.starts[5] += 1
    with pytest.raises(ValueError, match="the mask keeps"):
        compressed.to(torch.float16)(torch.randn(1, 200).half())


def test_the_wrong_width_is_refused():
    _, compressed = pair(torch.float32)
    with pytest.raises(ValueError, match="inputs have 100 features, expected 200"):
        compressed(torch.randn(1, 100))


def stack(bits, dtype=torch.float32):
    """A few layers with a compressed one in the middle."""
    weight = pair(dtype)[1].form if bits == 16 else whole_numbers(130, 200, 0.5, bits, dtype)[0]
    return nn.Sequential(nn.Linear(200, 200), CompressedLinear(weight, nn.Parameter(torch.randn(130))), nn.ReLU())


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("bits", [16, 8, 4])
def test_compiled_models_are_one_graph_and_give_the_same(bits, backend):
    torch.compiler.reset()  # the limit of recompilations is of the process
    model = stack(bits)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for size in (3, 20):
        inputs = torch.randn(2, size, 200)
        with torch.no_grad():
            assert torch.equal(compiled(inputs), model(inputs))
        one, two = (inputs.clone().requires_grad_() for _ in range(2))
        gradients = []
        for layers, given in ((model, one), (compiled, two)):
            model.zero_grad()
            layers(given).square().sum().backward()
            gradients.append([given.grad, *(parameter.grad for parameter in model.parameters())])
        assert len(gradients[0]) == 4
        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_damage_is_found_while_compiling():
    torch.compiler.reset()
    model = stack(8)
    model[1].starts[5] += 1
    with pytest.raises(Exception, match="the mask keeps"):
        torch.compile(model, backend="eager", fullgraph=True)(torch.randn(1, 200))


def test_the_operators_are_as_torch_wants_them():
    weight = whole_numbers(30, 200, 0.5, 8, torch.float32)[0]
    parts = weight.values, weight.mask, weight.starts, weight.columns, weight.scales, weight.wide
    inputs, bias = torch.randn(3, 200, requires_grad=True), torch.randn(30, requires_grad=True)
    torch.library.opcheck(torch.ops.tamp_lightning.linear.default, (inputs, *parts, bias))
    torch.library.opcheck(torch.ops.tamp_lightning.transposed.default, (torch.randn(3, 30), *parts))


def test_a_model_is_compressed_where_it_is_sparse():
    model = nn.ModuleDict({name: nn.Linear(64, 64) for name in ("sparse", "dense", "tied", "head")})
    for name in ("sparse", "tied"):
        model[name].weight.data = pruned(64, 64, 0.5, torch.float32)
    model["head"].weight = model["tied"].weight
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    assert compress_linears(model) == 1
    assert isinstance(model["sparse"], CompressedLinear)
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    assert held_by(model).nbytes == model["sparse"].form.nbytes < 0.6 * 4 * 64 * 64
    assert "64, 64, bias=True, kept=0." in repr(model["sparse"])
