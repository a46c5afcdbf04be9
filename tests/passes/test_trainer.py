"""The walk over the blocks: what each block sees, what is left behind, what does not depend on what."""

import time
from pathlib import Path

import lightning as L
import pytest
import torch
from transformers import LlavaNextForConditionalGeneration

from tamp_lightning.methods.solvers import Wanda
from tamp_lightning.passes.trainer import prune_stream, walking_trainer
from tamp_lightning.stream import DiskStream, MemoryStream

from ..conftest import TAMP, WANDA, as_batch, calibration, hashes, run, toys
from ..stream.conftest import logits, make_llama, make_llava, save


class LastBlock(L.Callback):
    """Advances every cached batch through the last block, which is pruned by then."""

    def __init__(self):
        self.hidden = []

    def on_train_epoch_end(self, trainer, module):
        if module.walk == "prune" and module.index == len(module.stream.facts.linears) - 1:
            for batch in module.cache:
                module.current = batch
                self.hidden.append(module.block(batch.hidden, **batch.kwargs))


class Diary(L.Callback):
    """Notes the passes, and what Lightning saw of the model."""

    def __init__(self):
        self.passes, self.steps, self.state = [], [], []

    def on_train_epoch_start(self, trainer, module):
        self.passes.append((module.walk, module.index))

    def on_train_epoch_end(self, trainer, module):
        self.steps.append(trainer.global_step)
        self.state = list(module.state_dict())


@torch.no_grad()
def hidden_after_blocks(model, batch, *, masked=False):
    seen = []
    handle = model.get_decoder().layers[-1].register_forward_hook(lambda _m, _a, output: seen.append(output))
    model(**{k: v for k, v in batch.items() if masked or k != "attention_mask"}, use_cache=False)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("place", ["memory", "disk"])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(("make", "kinds"), [(make_llava, "tptpp"), (make_llama, "ttttt")])
def test_last_cached_hidden_state_is_that_of_the_pruned_model(make, kinds, size, place, tmp_path):
    model, samples, last = make(), toys(kinds), LastBlock()
    data = calibration(samples, size)
    if place == "memory":
        run(model, data, TAMP, last)
    else:
        stream = DiskStream(save(model, tmp_path / "source", sharded=True), tmp_path / "out")
        prune_stream(stream, data, TAMP, progress=False, accelerator="cpu", callbacks=[last])
        model = type(model).from_pretrained(tmp_path / "out").eval()
    assert len(last.hidden) == -(-len(samples) // size)
    for k, hidden in enumerate(last.hidden):
        batch = as_batch(samples[k * size : (k + 1) * size])
        assert torch.equal(hidden, hidden_after_blocks(model, batch))
        valid = batch["attention_mask"].bool()
        with_mask = hidden_after_blocks(model, batch, masked=True)
        torch.testing.assert_close(hidden[valid], with_mask[valid], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", [TAMP, WANDA])
@pytest.mark.parametrize("order", [[1, 3, 0, 2, 4], [0, 2, 4, 1, 3], [4, 3, 2, 1, 0]])
def test_text_and_pictures_in_any_order_give_the_same_masks(method, order):
    samples = toys("tptpt")
    first = run(make_llava(), calibration(samples, 1), method)
    assert hashes(run(make_llava(), calibration(samples, 1, order), method)) == hashes(first)


@pytest.mark.parametrize("order", [[1, 3, 0, 2, 4], [4, 3, 2, 1, 0]])
def test_statistics_do_not_depend_on_the_order_to_the_last_bit(order, monkeypatch):
    seen, original = [], Wanda.scores
    monkeypatch.setattr(Wanda, "scores", lambda self, weight, norm: seen.append(norm) or original(self, weight, norm))
    for given in (range(5), order):
        run(make_llava(), calibration(toys("tptpt"), 1, given))
    assert len(seen) == 2 * 21
    assert all(torch.equal(a, b) for a, b in zip(seen[:21], seen[21:], strict=True))


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [1, 3, 0, 2, 4]])
def test_every_picture_counts_wherever_it_stands(order):
    samples, other = toys("tptpt"), toys("tptpt", seed=1)
    swapped = [*samples[:3], type(samples[3])(samples[3].ids, other[3].pixels), samples[4]]
    first, second = (run(make_llava(), calibration(s, 1, order), WANDA) for s in (samples, swapped))
    assert hashes(first) != hashes(second)


@pytest.mark.parametrize("method", [TAMP, WANDA])
def test_batch_size_changes_no_mask(method):
    samples = toys("tptptp")
    alone, three, six = (hashes(run(make_llava(), calibration(samples, size), method)) for size in (1, 3, 6))
    assert alone == three == six


def test_two_runs_are_bit_identical_and_memory_equals_disk(tmp_path: Path):
    samples = toys("tpptt")
    source = save(make_llava(), tmp_path / "source", sharded=True)
    models = [make_llava(), make_llava()]
    first, second = (run(model, calibration(samples, 2)) for model in models)
    third = prune_stream(
        DiskStream(source, tmp_path / "out"), calibration(samples, 2), TAMP, progress=False, accelerator="cpu"
    )
    assert hashes(first) == hashes(second) == hashes(third)
    assert first.scores == second.scores == third.scores
    on_disk = LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "out").state_dict()
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[name])
        assert torch.equal(value, on_disk[name])


@pytest.mark.parametrize(("method", "walks"), [(TAMP, ["measure", "prune"]), (WANDA, ["prune"])])
def test_one_epoch_is_one_pass_and_one_step(method, walks):
    diary = Diary()
    run(make_llava(), calibration(toys("tpt"), 2), method, diary)
    assert diary.passes == [(walk, block) for walk in walks for block in range(3)]
    assert diary.steps == list(range(1, 3 * len(walks) + 1))
    assert diary.state == ["clock"]


@pytest.mark.parametrize("tied", [False, True])
def test_nothing_but_the_linears_of_the_blocks_changes(tied):
    model = make_llava(tied)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pruned = run(model, calibration(toys("tp"), 1))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"{name}.weight" for name in pruned.linears}
    assert len(changed) == 21
    assert all(".layers." in name and "language_model" in name for name in changed)
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert (head is embedding) == tied


class Breaks(L.Callback):
    """Raises in the first batch of the second prune pass."""

    def on_train_batch_end(self, trainer, module, *_):
        if module.walk == "prune" and module.index == 1:
            raise ZeroDivisionError


def hooks_of(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("breaks", [False, True])
def test_no_hook_and_no_foreign_attention_is_left(breaks):
    model = make_llava()
    logits(model)  # transformers leaves hooks of its own in the vision tower
    names, hooks = [n for n, _ in model.named_modules()], hooks_of(model)
    if breaks:
        with pytest.raises(ZeroDivisionError):
            run(model, calibration(toys("tp"), 1), TAMP, Breaks())
    else:
        run(model, calibration(toys("tp"), 1))
    assert [n for n, _ in model.named_modules()] == names
    assert hooks_of(model) == hooks
    for part in (model, model.get_decoder(), model.model.vision_tower):
        assert part.config._attn_implementation == "sdpa"


def test_arguments_the_walk_fixes_are_refused():
    with pytest.raises(ValueError, match=r"trainer\.max_epochs is fixed to -1"):
        walking_trainer([], max_epochs=3)


def test_the_callers_own_callbacks_and_bar_setting_are_used():
    diary = Diary()
    stream = MemoryStream(make_llama())
    options = {"accelerator": "cpu", "callbacks": diary, "enable_progress_bar": False}
    prune_stream(stream, calibration(toys("tt"), 1), WANDA, **options)
    assert len(diary.passes) == 3


def test_seconds_cover_masking():
    class Slow(L.Callback):
        def on_train_epoch_end(self, trainer, module):
            if module.walk == "prune":
                time.sleep(0.05)

    pruned = run(make_llama(), calibration(toys("t"), 1), TAMP, Slow())
    assert pruned.seconds["prune"] >= 3 * 0.05
    assert set(pruned.seconds) == {"measure", "prune"}
