"""docs/export.md is enough to read the layout: this reader was written from it, with numpy and nothing of ours."""

import json
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tamp_lightning.export.job import Source, to_bitmask, to_dense

from ..stream.conftest import make_llama, save
from .conftest import NO_CARDS, bitmask, n_of_m, pruned_run
from .test_loading import pruned_run as run_with_experts

TYPES = {"F64": "<u8", "F32": "<u4", "F16": "<u2", "BF16": "<u2", "I64": "<i8", "U8": "u1", "I8": "i1"}


def open_file(path):
    content = Path(path).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__")

    def tensor(key):
        start, end = header[key]["data_offsets"]
        return np.frombuffer(content[8 + length + start : 8 + length + end], TYPES[header[key]["dtype"]])

    return header, metadata, tensor


def marks_of_bitmask(code, size):
    return [bool(code[i // 8] >> (7 - i % 8) & 1) for i in range(size)]


def marks_of_positions(code, size):
    n, m = int(code[0]), int(code[1])
    width = (comb(m, n) - 1).bit_length()
    numbers = sorted(sum(1 << i for i in places) for places in combinations(range(m), n))
    bits = "".join(f"{byte:08b}" for byte in code[2:])
    marks = []
    for group in range(size // m):
        number = numbers[int(bits[group * width : (group + 1) * width], 2)]
        marks += [bool(number >> (m - 1 - i) & 1) for i in range(m)]
    return marks


def numbers_of(dtype, stored, count):
    if dtype == "I8":
        return [int(value) for value in stored]
    halves = [half for byte in stored.tolist() for half in (byte & 15, byte >> 4)]
    assert halves[count:] in ([], [0])
    return [half - 16 * (half > 7) for half in halves[:count]]


def times(numbers, marks, scales, info, grid):
    """Bytes of the weight of marks and numbers times scales [*grid], which are bits of bfloat16."""
    *stack, rows, columns = info["shape"]
    wide = (scales.astype(np.uint32) << 16).view(np.float32).reshape(-1, *grid[-2:])
    down = bool(stack) and grid == [*stack, -(-rows // 128), columns]
    assert down or grid == [*stack, rows, -(-columns // 128)]
    products = np.zeros(len(marks), np.float32)
    for i, mark in enumerate(marks):
        if mark:
            row, column = i // columns % rows, i % columns
            place = (row // 128, column) if down else (row, column // 128)
            products[i] = np.float32(next(numbers)) * wide[i // columns // rows][place]
    if info["dtype"] == "BF16":
        bits = products.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16).tobytes()
    return products.astype({"F32": np.float32, "F16": np.float16}[info["dtype"]]).tobytes()


def read(path, experts=False):
    """Bytes of the dense file, in which experts are encoded or not."""
    header, metadata, tensor = open_file(path)
    rounded = any(key.endswith("_scales") for key in header)
    assert metadata["tamp_bitmask.version"] == ("3" if experts else "2" if rounded else "1")
    text = metadata["tamp_bitmask.dense_header"]
    dense = {key: value for key, value in json.loads(text).items() if key != "__metadata__"}
    content = len(text.encode()).to_bytes(8, "little") + text.encode()
    for key, info in sorted(dense.items(), key=lambda item: item[1]["data_offsets"]):
        size = int(np.prod(info["shape"], dtype=int))
        if f"{key}_bitmask" in header:
            marks = marks_of_bitmask(tensor(f"{key}_bitmask"), size)
        elif f"{key}_positions" in header:
            marks = marks_of_positions(tensor(f"{key}_positions"), size)
        elif f"{key}_scales" in header:
            marks = [True] * size
        else:
            content += tensor(key).tobytes()
            continue
        if f"{key}_scales" in header:
            numbers = iter(numbers_of(header[key]["dtype"], tensor(key), sum(marks)))
            content += times(numbers, marks, tensor(f"{key}_scales"), info, header[f"{key}_scales"]["shape"])
            assert next(numbers, None) is None
            continue
        values = iter(tensor(key))
        zero = np.zeros((), TYPES[info["dtype"]])
        content += np.array([next(values) if mark else zero for mark in marks], TYPES[info["dtype"]]).tobytes()
        assert next(values, None) is None
    return content


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_bitmask(tmp_path, dtype):
    run = pruned_run(tmp_path / "run", make_llama(num_hidden_layers=1, vocab_size=16), dtype=dtype)
    small = bitmask(run, tmp_path / "small")
    assert read(small / "model.safetensors") == (run / "model/model.safetensors").read_bytes()


@pytest.mark.parametrize("values", ["int8", "int4"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_whole_numbers(tmp_path, dtype, values):
    run = pruned_run(tmp_path / "run", make_llama(num_hidden_layers=1, vocab_size=16), dtype=dtype)
    to_bitmask(Source.find(run), tmp_path / "small", NO_CARDS, values)
    to_dense(Source.find(tmp_path / "small"), tmp_path / "back", NO_CARDS)
    assert read(tmp_path / "small/model.safetensors") == (tmp_path / "back/model.safetensors").read_bytes()
    assert read(tmp_path / "small/model.safetensors") != (run / "model/model.safetensors").read_bytes()


def test_positions(tmp_path):
    model = save(make_llama(num_hidden_layers=1, vocab_size=16), tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    for (n, m), key in zip([(2, 4), (1, 4), (4, 8), (8, 16)], [k for k in tensors if "_proj" in k], strict=False):
        tensors[key][torch.from_numpy(~n_of_m(tuple(tensors[key].shape), n, m))] = 0
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    small = bitmask(model, tmp_path / "small")
    assert sum(key.endswith("_positions") for key in open_file(small / "model.safetensors")[0]) == 4
    assert read(small / "model.safetensors") == (model / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("layout", "values"), [("mixtral", None), ("gemma4_moe", "int4"), ("gpt_oss", "int4")])
def test_experts(tmp_path, layout, values):
    """A tensor for each matrix, a stack, a stack that lies as [in, out]."""
    run, _ = run_with_experts(tmp_path / "run", layout)
    to_bitmask(Source.find(run), tmp_path / "small", NO_CARDS, values)
    to_dense(Source.find(tmp_path / "small"), tmp_path / "back", NO_CARDS)
    back = (tmp_path / "back/model.safetensors").read_bytes()
    assert read(tmp_path / "small/model.safetensors", experts=True) == back
    assert (back == (run / "model/model.safetensors").read_bytes()) == (values is None)
