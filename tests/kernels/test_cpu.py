"""The CPU kernel against products in float64 with the expanded weight, for every instruction set that is at hand."""

import ctypes
import mmap
from contextlib import contextmanager

import pytest
import torch

from tamp_lightning.kernels import build, cpu
from tamp_lightning.kernels.form import Bitmask

from .conftest import DTYPES, SHAPES, pruned
from .quantised import whole_numbers

EPS = torch.finfo(torch.float32).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_product_is_exact_to_summation_error(shape, density, dtype, instructions):
    weight = pruned(*shape, density, dtype)
    form = Bitmask.of_dense(weight)
    for batch in range(1, cpu.MOST + 1):
        inputs, bias = torch.randn(batch, shape[1]), torch.randn(shape[0])
        exact = inputs.double() @ weight.double().T + bias
        bound = (shape[1] + 1) * EPS * (inputs.abs().double() @ weight.abs().double().T + bias.abs())
        for which in instructions:
            assert bool(((cpu.multiply(form, inputs, bias, which) - exact).abs() <= bound).all()), (which, batch)
            bare = cpu.multiply(form, inputs, None, which)
            assert bool(((bare - (exact - bias)).abs() <= bound).all()), (which, batch)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_whole_numbers_are_multiplied_and_expanded(shape, density, bits, instructions):
    form, exact = whole_numbers(*shape, density, bits)
    form.check()
    half = shape[0] // 2
    for batch in range(1, cpu.MOST + 1):
        inputs, bias = torch.randn(batch, shape[1]), torch.randn(shape[0])
        right = inputs.double() @ exact.T + bias
        bound = (shape[1] + 1) * EPS * (inputs.abs().double() @ exact.abs().T + bias.abs())
        for which in instructions:
            assert bool(((cpu.multiply(form, inputs, bias, which) - right).abs() <= bound).all()), (which, batch)
    for which in instructions:
        assert torch.equal(cpu.expand(form, 0, shape[0], torch.float32, which), exact.float())
        assert torch.equal(cpu.expand(form, half, shape[0], torch.bfloat16, which), exact[half:].bfloat16())
    assert torch.equal(form.expand(half, dtype=torch.float32), exact[half:].float())
    assert torch.equal(form.expand(), exact.bfloat16())


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kept", [1, 63, 64, 65, 128, 201])
def test_no_whole_number_is_read_beyond_the_last(bits, kept, instructions):
    """As below, with values that end where a page ends, and scales that do."""
    mask = torch.zeros(3, 100, dtype=torch.bool)
    mask.view(-1)[torch.randperm(300)[:kept]] = True
    numbers = torch.randint(-7, 8, (kept if bits == 8 else -(-kept // 2),), dtype=torch.int8)
    scales = torch.rand(3, 1).bfloat16()
    numbers = numbers if bits == 8 else numbers.view(torch.uint8)
    with at_the_end_of_a_page(numbers) as values, at_the_end_of_a_page(scales.flatten()) as grid:
        form = Bitmask.of_mask(values, mask, grid.view(3, 1), torch.bfloat16)
        assert form.values.data_ptr() == values.data_ptr()
        for which in instructions:
            inputs = torch.randn(5, 100)
            out = cpu.multiply(form, inputs, None, which)
            assert torch.allclose(out, inputs @ form.expand(dtype=torch.float32).T, atol=1e-3)
            assert torch.equal(cpu.expand(form, 0, 3, torch.bfloat16, which), form.expand())


@contextmanager
def at_the_end_of_a_page(tensor):
    """A copy of a small tensor behind which nothing may be read: the program would die."""
    page = mmap.PAGESIZE
    area = mmap.mmap(-1, 2 * page)
    libc = ctypes.CDLL(None)
    whole = torch.frombuffer(area, dtype=torch.uint8)
    assert libc.mprotect(ctypes.c_void_p(whole.data_ptr() + page), ctypes.c_size_t(page), 0) == 0
    try:
        copy = whole[page - tensor.nbytes : page].view(tensor.dtype)
        copy.copy_(tensor)
        yield copy
    finally:
        libc.mprotect(ctypes.c_void_p(whole.data_ptr() + page), ctypes.c_size_t(page), 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_do_not_depend_on_their_company(dtype, instructions, monkeypatch):
    """Each is summed alone: the same bits whatever the threads and the batch of a call beside it."""
    monkeypatch.setattr(cpu, "WORTH", 1)
    form = Bitmask.of_dense(pruned(130, 1024, 0.5, dtype))
    inputs = torch.randn(1, 1024)
    before = torch.get_num_threads()
    try:
        for which in instructions:
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append(cpu.multiply(form, inputs, None, which))
            assert all(torch.equal(result, results[0]) for result in results)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_are_expanded_bit_for_bit(shape, dtype, instructions):
    weight = pruned(*shape, 0.5, dtype)
    form = Bitmask.of_dense(weight)
    half = shape[0] // 2
    for which in instructions:
        assert torch.equal(cpu.expand(form, 0, shape[0], dtype, which), weight)
        assert torch.equal(cpu.expand(form, half, shape[0], torch.float32, which), weight[half:].float())


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_values_are_those_of_torch(dtype, instructions):
    """Every 16-bit pattern: subnormals, infinities, not-a-number; one in each row."""
    if dtype is torch.float32:
        values = torch.tensor([0.0, -0.0, 1e-45, -3e38, float("inf"), float("nan")])
    else:
        values = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)
    form = Bitmask.of_dense(values.unsqueeze(1), torch.ones(len(values), 1, dtype=torch.bool))
    for which in instructions:
        wide = cpu.expand(form, 0, len(values), torch.float32, which)[:, 0]
        assert torch.equal(wide.nan_to_num(7), values.float().nan_to_num(7))
        product = cpu.multiply(form, torch.ones(1, 1), None, which)[0]
        assert torch.equal(product.nan_to_num(7), values.float().nan_to_num(7) + 0.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kept", [1, 63, 64, 65, 200])
def test_nothing_is_read_beyond_the_values(dtype, kept, instructions):
    """The values end where a page ends, and the next page may not be read."""
    with at_the_end_of_a_page(torch.randn(kept).to(dtype)) as values:
        mask = torch.zeros(3, 100, dtype=torch.bool)
        mask.view(-1)[torch.randperm(300)[:kept]] = True
        form = Bitmask.of_mask(values, mask)
        assert form.values.data_ptr() == values.data_ptr()
        for which in instructions:
            inputs = torch.randn(5, 100)
            out = cpu.multiply(form, inputs, None, which)
            assert torch.allclose(out, inputs @ form.expand().float().T, atol=1e-4)
            assert torch.equal(cpu.expand(form, 0, 3, dtype, which), form.expand())


def test_defaults_of_torch_do_not_matter(instructions):
    """A buffer of another dtype or device would be written past its end."""
    weight = pruned(33, 100, 0.5, torch.bfloat16)
    form, inputs = Bitmask.of_dense(weight), torch.ones(1, 100)
    expected = cpu.multiply(form, inputs, None)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("meta"):
            assert torch.equal(cpu.multiply(form, inputs, None), expected)
            assert torch.equal(cpu.expand(form, 0, 33, torch.bfloat16), weight)
            assert cpu.best_set.__wrapped__() == cpu.best_set()
    finally:
        torch.set_default_dtype(before)


def test_an_instruction_set_that_is_wrong_is_not_used(instructions, monkeypatch):
    assert all(cpu._agrees(which) for which in instructions)
    assert cpu.best_set() == instructions[-1]
    right = cpu.multiply
    monkeypatch.setattr(cpu, "multiply", lambda *given: right(*given) + (given[3] == instructions[-1] != 0))
    assert cpu.best_set.__wrapped__() == max(0, instructions[-1] - 1)


def test_without_a_compiler_one_line_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("TAMP_CACHE", str(tmp_path))
    with pytest.warns(UserWarning, match=r"not built \(there is no C\+\+ compiler 'no-such-compiler'\): plain torch"):
        assert build.cpu_library.__wrapped__() is None
    assert not any(tmp_path.rglob("*.so"))


def test_a_broken_compiler_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("TAMP_CACHE", str(tmp_path))
    with pytest.warns(UserWarning, match="was not built"):
        assert build.cpu_library.__wrapped__() is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv(build.SWITCH, "0")
    assert build.cpu_library.__wrapped__() is None


def test_it_is_built_once(instructions, tmp_path, monkeypatch):
    build.load(tmp_path)
    (path,) = tmp_path.iterdir()
    before = path.stat().st_mtime_ns
    monkeypatch.setattr(build, "_compile", lambda path: pytest.fail("built again"))
    build.load(tmp_path)
    assert path.stat().st_mtime_ns == before
