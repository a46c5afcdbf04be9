"""Checkpoint folders to the bitmask form and back."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tamp_lightning.checkpoint.reader import CheckpointReader
from tamp_lightning.export.job import Source, to_bitmask
from tamp_lightning.models.videollama2 import Videollama2Qwen2ForCausalLM

from ..models.videollama2.conftest import tiny_config
from ..stream.conftest import make_llama, make_llava, make_qwen2, save
from .conftest import NO_CARDS, bitmask, dense, n_of_m, pruned_run, weight_files


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("layout", [{}, {"sharded": True}, {"old": True, "sharded": True}], ids=str)
def test_a_run_comes_back_byte_for_byte(tmp_path, dtype, layout):
    run = pruned_run(tmp_path / "run", dtype=dtype, **layout)
    small = bitmask(run, tmp_path / "small")
    back = dense(small, tmp_path / "back")
    assert weight_files(back) == weight_files(run / "model")
    assert sum(map(len, weight_files(small).values())) < sum(map(len, weight_files(back).values()))
    names = {path.relative_to(run / "model").as_posix() for path in (run / "model").rglob("*")}
    assert {path.relative_to(back).as_posix() for path in back.rglob("*")} == names
    for name in names - set(weight_files(back)):
        assert json_or_bytes(back / name) == json_or_bytes(run / "model" / name), name


def json_or_bytes(path):
    return json.loads(path.read_text()) if path.suffix == ".json" else path.read_bytes()


@pytest.mark.parametrize(
    "make", [make_llama, make_qwen2, lambda: make_llava(tied=True)], ids=["llama", "qwen2", "tied"]
)
def test_a_plain_sparse_checkpoint_needs_no_masks(tmp_path, make):
    model = pruned_run(tmp_path / "run", make()) / "model"
    small = bitmask(model, tmp_path / "small")
    assert weight_files(dense(small, tmp_path / "back")) == weight_files(model)


def test_videollama2_in_the_official_layout(tmp_path):
    torch.manual_seed(0)
    run = pruned_run(tmp_path / "run", Videollama2Qwen2ForCausalLM(tiny_config()))
    small = bitmask(run, tmp_path / "small")
    assert weight_files(dense(small, tmp_path / "back")) == weight_files(run / "model")
    assert any(key.endswith("_bitmask") for key in CheckpointReader(small).shard_of)
    loaded = Videollama2Qwen2ForCausalLM.from_pretrained(small).state_dict()
    for name, value in Videollama2Qwen2ForCausalLM.from_pretrained(run / "model").state_dict().items():
        assert torch.equal(loaded[name], value), name


def test_kept_zeros_of_either_sign_and_masked_minus_zeros_keep_their_bits(run, tmp_path):
    file = next((run / "model").glob("*.safetensors"))
    tensors = load_file(file)
    key = next(k for k in tensors if k.endswith("q_proj.weight") and "language_model" in k)
    kept, masked = (tensors[key] != 0).nonzero(), (tensors[key] == 0).nonzero()
    tensors[key][tuple(kept[0])], tensors[key][tuple(kept[1])] = 0.0, -0.0
    tensors[key][tuple(masked[0])] = -0.0
    save_file(tensors, file, metadata={"format": "pt"})
    small = bitmask(run, tmp_path / "small")
    stored = len(load_file(small / file.name)[key])
    assert stored == len(kept) + 1  # with masks, the zero that was kept is stored; the masked -0.0 has to be
    assert weight_files(dense(small, tmp_path / "back")) == weight_files(run / "model")


def test_an_empty_and_a_full_linear(tmp_path):
    model = save(make_llama(), tmp_path / "model")
    file = model / "model.safetensors"
    tensors = load_file(file)
    empty, full, holes = (f"model.layers.0.self_attn.{n}_proj.weight" for n in "qkv")
    tensors[empty].zero_()
    tensors[holes][3:] = 0
    save_file(tensors, file, metadata={"format": "pt"})
    small = bitmask(model, tmp_path / "small")
    stored = load_file(small / "model.safetensors")
    assert stored[empty].shape == (0,)
    assert stored[full].shape == tensors[full].shape
    assert weight_files(dense(small, tmp_path / "back")) == weight_files(model)


def test_2_of_4_takes_positions_and_is_below_the_bound_of_a_bitmask(tmp_path):
    model = save(make_llama(), tmp_path / "model", sharded=True)
    for file in model.glob("*.safetensors"):
        tensors = load_file(file)
        for key in (k for k in tensors if "_proj" in k):
            tensors[key] *= torch.from_numpy(n_of_m(tuple(tensors[key].shape), 2, 4))
        save_file({k: v.masked_fill(v == 0, 0) for k, v in tensors.items()}, file, metadata={"format": "pt"})
    sizes = to_bitmask(Source.find(model), tmp_path / "small", NO_CARDS)
    assert sizes.linears == 21
    assert sizes.kept == sizes.weights / 2
    assert sizes.encoded == sizes.kept * 4 + sizes.weights / 4 * 3 / 8 + 2 * sizes.linears
    assert weight_files(dense(tmp_path / "small", tmp_path / "back")) == weight_files(model)


def test_the_index_lists_what_is_there(tmp_path):
    small = bitmask(pruned_run(tmp_path / "run", sharded=True), tmp_path / "small")
    index = json.loads((small / "model.safetensors.index.json").read_text())
    reader = CheckpointReader(small)  # refuses an index that disagrees
    assert index["weight_map"] == reader.shard_of
    tensors = [t for path in small.glob("*.safetensors") for t in load_file(path).values()]
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in tensors)


def test_tensors_start_at_multiples_of_their_width(tmp_path):
    reader = CheckpointReader(bitmask(pruned_run(tmp_path / "run", dtype=torch.bfloat16), tmp_path / "small"))
    for shard in reader.shards.values():
        assert all(info.start % (1 if info.dtype == "U8" else 2) == 0 for info in shard.tensors.values())
