"""The Triton kernels: on CPUs through Triton's interpreter, on a GPU as they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tamp_lightning.kernels import gpu
from tamp_lightning.kernels.form import Bitmask
from tamp_lightning.kernels.linear import CompressedLinear

from .conftest import DTYPES, pruned
from .quantised import whole_numbers

ROOT = Path(__file__).parents[2]

INTERPRETED = """
import sys, torch
from tamp_lightning.kernels import gpu
from tamp_lightning.kernels.form import Bitmask

sys.path.insert(0, sys.argv[2])
from tests.kernels.quantised import whole_numbers

generator = torch.Generator().manual_seed(0)
for rows, columns, density in [(1, 1, 1.0), (5, 1100, 0.4), (3, 64, 0.0)]:
    if sys.argv[1].startswith("int"):
        form, weight = whole_numbers(rows, columns, density, int(sys.argv[1][3:]), torch.float32)
        assert torch.equal(gpu.expand(form), weight.float()), (rows, columns, density)
    else:
        weight = torch.randn(rows, columns, generator=generator)
        weight = (weight * (torch.rand(rows, columns, generator=generator) < density)).to(getattr(torch, sys.argv[1]))
        form = Bitmask.of_dense(weight)
        assert torch.equal(gpu.expand(form), weight), (rows, columns, density)
    for batch in (1, 3):
        inputs, bias = torch.randn(batch, columns, generator=generator), torch.randn(rows, generator=generator)
        exact = inputs.double() @ weight.double().T + bias
        scale = inputs.double().abs() @ weight.double().abs().T + bias.abs()
        bound = (columns + 1) * torch.finfo(torch.float32).eps * scale
        assert bool(((gpu.multiply(form, inputs, bias) - exact).abs() <= bound).all()), (rows, columns, density, batch)
        bare = gpu.multiply(form, inputs, None)
        assert bool(((bare - exact + bias).abs() <= bound).all()), (rows, columns, density, batch)
    if form.capacity > 2:  # damaged: wrong numbers, but nothing outside is read
        form.mask.fill_(255)
        form.starts.fill_(1 << 30)
        gpu.multiply(form, inputs, None)
        form.starts.fill_(-(1 << 30))
        gpu.expand(form)
print("all right")
"""


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "int8", "int4"])
def test_interpreted_products_and_weights(dtype):
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED, dtype, str(ROOT)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "all right\n"


def test_without_triton_or_a_gpu_it_does_not_serve():
    assert not gpu.serves(Bitmask.of_dense(torch.ones(2, 2)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 3, 8, 9, 300])
def test_on_a_gpu(dtype, batch):
    weight = pruned(515, 2100, 0.5, dtype).cuda()
    inputs, bias = torch.randn(batch, 2100, device="cuda").to(dtype), torch.randn(515, device="cuda").to(dtype)
    form = Bitmask.of_dense(weight)
    assert torch.equal(gpu.expand(form), weight)
    out = CompressedLinear(form, torch.nn.Parameter(bias))(inputs)
    exact = inputs.double() @ weight.double().T + bias
    scale = inputs.double().abs() @ weight.double().abs().T + bias.abs()
    step = torch.finfo(dtype).eps
    bound = 2101 * torch.finfo(torch.float32).eps * scale + 2 * step * exact.abs() + step
    assert bool(((out - exact).abs() <= bound).all())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("batch", [1, 8, 300])
def test_whole_numbers_on_a_gpu(bits, batch):
    form, exact = whole_numbers(515, 2100, 0.5, bits)
    linear = CompressedLinear(form).cuda()
    inputs = torch.randn(batch, 2100, device="cuda", dtype=torch.bfloat16)
    assert torch.equal(linear.weight, exact.bfloat16().cuda())
    right = inputs.double() @ exact.cuda().T
    scale = inputs.double().abs() @ exact.cuda().abs().T
    assert bool(((linear(inputs) - right).abs() <= 2**-7 * scale).all())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cuda_graph_holds_it():
    weight = pruned(256, 1024, 0.5, torch.bfloat16).cuda()
    linear = CompressedLinear(Bitmask.of_dense(weight))
    inputs = torch.randn(1, 1024, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        expected = linear(inputs)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = linear(inputs)
        out.zero_()
        graph.replay()
    assert torch.equal(out, expected)
