import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlavaNextForConditionalGeneration

from tamp_lightning.methods.selection import Selection
from tamp_lightning.stream import DiskStream, MemoryStream

from .conftest import (
    MODELS,
    halve,
    layout_of,
    logits,
    make_llama,
    make_llava,
    prune,
    save,
    tensors_of,
)

CASES = [
    pytest.param(name, sharded, old, id=f"{name}-{'sharded' if sharded else 'single'}-{'old' if old else 'new'}")
    for name in MODELS
    for sharded in (False, True)
    for old in ((False, True) if "llava" in name else (False,))
]


def equal_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


@pytest.mark.parametrize(("name", "sharded", "old"), CASES)
def test_a_checkpoint_goes_through_the_stream(tmp_path: Path, name: str, sharded: bool, old: bool):
    model = MODELS[name]()
    source = save(model, tmp_path / "source", sharded=sharded, old=old)
    stream = DiskStream(source, tmp_path / "out")
    for index in range(3):
        stream.load(index)
    assert torch.equal(logits(stream.model), logits(type(model).from_pretrained(source)))
    for index in range(3):
        stream.release(index)
        assert all(p.is_meta for p in stream.model.get_submodule(f"{stream.facts.blocks}.{index}").parameters())

    masks = prune(stream)
    files = stream.finish()
    assert layout_of(tmp_path / "out") == layout_of(source)
    check_weights(source, tmp_path / "out", model, masks)
    check_files(source, tmp_path / "out", files)


def check_weights(source: Path, out: Path, model, masks: dict[str, torch.Tensor]) -> None:
    pruned, info = type(model).from_pretrained(out, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for linear, mask in masks.items():
        weight = pruned.get_submodule(linear).weight
        assert torch.equal(weight, model.get_submodule(linear).weight * mask)
    touched = 0
    after = tensors_of(out)
    for key, before in tensors_of(source).items():
        touched += not equal_bits(before, after[key])
    assert touched == len(masks)


def check_files(source: Path, out: Path, files: dict[str, str]) -> None:
    assert sorted(files) == sorted(p.name for p in out.iterdir())
    for name, digest in files.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    beside = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer.model",
        "chat_template.jinja",
    ]
    index = "model.safetensors.index.json"
    for name in beside + ([index] if (source / index).exists() else []):
        assert (out / name).read_bytes() == (source / name).read_bytes()
    assert not {"modeling_evil.py", "training_args.bin", ".hidden", ".partial"} & {p.name for p in out.iterdir()}


def test_forward_through_the_stream_is_that_of_the_written_model(tmp_path: Path):
    source = save(make_llava(), tmp_path / "source", sharded=True, old=True)
    stream = DiskStream(source, tmp_path / "out")
    prune(stream)
    for index in range(3):
        stream.load(index)  # committed and released: the pruned weights come back
    here = logits(stream.model)
    stream.finish()
    assert torch.equal(here, logits(LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "out")))
    stream.release(1)
    stream.load(1)  # still after the spool is gone
    assert torch.equal(here, logits(stream.model))


def test_bfloat16_is_kept(tmp_path: Path):
    model = make_llava().to(torch.bfloat16)
    source = save(model, tmp_path / "source", old=True)
    stream = DiskStream(source, tmp_path / "out")
    for index in range(3):
        assert stream.load(index).self_attn.q_proj.weight.dtype == torch.bfloat16
    assert torch.equal(logits(stream.model), logits(type(model).from_pretrained(source)))
    masks = prune(stream)
    stream.finish()
    assert {t.dtype for t in tensors_of(tmp_path / "out").values()} == {torch.bfloat16}
    check_weights(source, tmp_path / "out", model, masks)


@pytest.mark.parametrize(("stored", "computed"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_survivors_keep_their_bits_whatever_dtype_was_computed_in(tmp_path: Path, stored: str, computed: str):
    model = make_llama().to(getattr(torch, stored))
    source = save(model, tmp_path / "source", sharded=True)
    stream = DiskStream(source, tmp_path / "out", dtype=getattr(torch, computed))
    assert stream.load(0).mlp.up_proj.weight.dtype == getattr(torch, computed)
    masks = prune(stream)
    stream.finish()
    after = tensors_of(tmp_path / "out")
    for key, before in tensors_of(source).items():
        mask = masks.get(key.removesuffix(".weight"))
        expected = before if mask is None else before.masked_fill(~mask, 0)
        assert equal_bits(after[key], expected)


def test_weights_moved_by_a_solver_are_written_in_the_stored_dtype(tmp_path: Path):
    source = save(make_llama().to(torch.bfloat16), tmp_path / "source")
    stream = DiskStream(source, tmp_path / "out", dtype=torch.float32, selection=Selection([r"0\.mlp\.up_proj"]))
    weight = stream.load(0).mlp.up_proj.weight
    mask = halve(weight)
    dense = weight.detach().clone()
    weight.data.mul_(mask)
    weight.data[0] *= 1.001
    moved = weight.detach().clone()
    stream.commit(0, {"mlp.up_proj": mask})
    # What activations are computed with from here on is what the output holds.
    assert torch.equal(weight[0], moved[0].bfloat16().float())
    stream.finish()
    written = tensors_of(tmp_path / "out")["model.layers.0.mlp.up_proj.weight"]
    assert torch.equal(written[0], moved[0].bfloat16())
    assert torch.equal(written[1:].float(), (dense * mask)[1:])


def test_blocks_are_frozen_and_in_eval_mode(llama_folder: Path, tmp_path: Path):
    for stream in (DiskStream(llama_folder, tmp_path / "out"), MemoryStream(make_llama().train())):
        block = stream.load(1)
        assert not block.training
        assert not any(p.requires_grad or p.is_meta for p in block.parameters())


def test_only_the_asked_for_block_is_in_memory(llama_folder: Path, tmp_path: Path):
    stream = DiskStream(llama_folder, tmp_path / "out")
    stream.load(1)
    for name, value in stream.model.named_parameters():
        assert value.is_meta == name.startswith(("model.layers.0.", "model.layers.2.")), name
    assert not any(buffer.is_meta for buffer in stream.model.buffers())


def test_release_forgets_what_was_not_committed(llama_folder: Path, tmp_path: Path):
    stream = DiskStream(llama_folder, tmp_path / "out")
    before = stream.load(0).mlp.up_proj.weight.clone()
    stream.load(0).mlp.up_proj.weight.data.zero_()
    assert not stream.load(0).mlp.up_proj.weight.any()  # the same block while it is loaded
    stream.release(0)
    assert torch.equal(stream.load(0).mlp.up_proj.weight, before)


def test_shards_appear_when_their_last_block_is_committed(llama_folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    stream = DiskStream(llama_folder, out)
    weight_map = json.loads((llama_folder / "model.safetensors.index.json").read_text())["weight_map"]
    for index, linears in enumerate(stream.facts.linears):
        block = stream.load(index)
        masks = {linear.name: halve(linear.weight(block)) for linear in linears}
        for name, mask in masks.items():
            block.get_parameter(f"{name}.weight").data.mul_(mask)
        stream.commit(index, masks)
        later = tuple(f"model.layers.{k}." for k in range(index + 1, 3))
        waiting = {f for key, f in weight_map.items() if key.startswith(later) and "_proj" in key}
        here = {f for key, f in weight_map.items() if key.startswith("model.layers.") and "_proj" in key} - waiting
        assert {p.name for p in out.glob("*.safetensors")} == here == set(stream.files)
    assert not (out / "config.json").exists()  # no checkpoint before it is whole
    stream.finish()
    assert AutoModelForCausalLM.from_pretrained(out).config.num_hidden_layers == 3


def test_linears_left_out_keep_their_bits(tmp_path: Path):
    source = save(make_llama(), tmp_path / "source")
    stream = DiskStream(source, tmp_path / "out", selection=Selection(exclude=[r"layers\.1\.", "o_proj"]))
    masks = prune(stream, skip=("mlp.down_proj",))
    stream.finish()
    assert len(masks) == 10
    check_weights(source, tmp_path / "out", make_llama(), masks)


def test_the_skeleton_runs_up_to_the_first_block(tmp_path: Path):
    model = make_llava()
    stream = DiskStream(save(model, tmp_path / "source", old=True), tmp_path / "out")

    class ReachedError(Exception):
        pass

    def first_input(whole) -> torch.Tensor:
        def stop(_, args, kwargs):
            raise ReachedError(args[0] if args else kwargs["hidden_states"])

        handle = whole.get_submodule(f"{stream.facts.blocks}.0").register_forward_pre_hook(stop, with_kwargs=True)
        with pytest.raises(ReachedError) as caught:
            logits(whole)
        handle.remove()
        return caught.value.args[0]

    assert torch.equal(first_input(stream.model), first_input(model))


def test_a_tied_head_that_is_stored_all_the_same(tmp_path: Path):
    model = make_llava(tied=True)
    source = save(model, tmp_path / "source", old=True)
    tensors = tensors_of(source)
    tensors["language_model.lm_head.weight"] = tensors["language_model.model.embed_tokens.weight"].clone()
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    stream = DiskStream(source, tmp_path / "out")
    assert stream.model.lm_head.weight is stream.model.model.language_model.embed_tokens.weight
    masks = prune(stream)
    stream.finish()
    assert layout_of(tmp_path / "out") == layout_of(source)
    check_weights(source, tmp_path / "out", model, masks)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_blocks_and_skeleton_live_on_the_asked_device(tmp_path: Path):
    model = make_llava()
    source = save(model, tmp_path / "source")
    stream = DiskStream(source, tmp_path / "out", device="cuda")
    stream.load(0)
    here = [*stream.model.buffers(), *(p for p in stream.model.parameters() if not p.is_meta)]
    assert {tensor.device.type for tensor in here} == {"cuda"}
    masks = {name: mask.cpu() for name, mask in prune(stream).items()}
    stream.finish()
    check_weights(source, tmp_path / "out", model, masks)
