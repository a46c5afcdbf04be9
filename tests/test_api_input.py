"""Models and batches as people hand them in: unwrapped where that is right, refused in one line where it is not."""

import copy
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tamp_lightning import prune
from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.ops.spectrum import hill_alpha

from .conftest import as_batch, toys
from .stream.conftest import logits, make_llama, make_llava, save
from .test_api import OPTIONS, batches


def test_a_compiled_model_is_pruned_as_what_it_was():
    plain, model = make_llava(), make_llava()
    compiled = torch.compile(model, backend="eager")
    result = prune(compiled, batches(), **OPTIONS)
    assert result.model is model
    assert result.plan == prune(plain, batches(), **OPTIONS).plan
    assert torch.equal(logits(model), logits(plain))
    assert compiled._orig_mod is model


def test_a_model_compiled_in_place_is_left_compiled():
    plain, model = make_llava(), make_llava()
    model.compile(backend="eager")
    call = model._compiled_call_impl
    assert call is not None
    assert prune(model, batches(), **OPTIONS).plan == prune(plain, batches(), **OPTIONS).plan
    assert model._compiled_call_impl is call


@pytest.fixture(autouse=True)
def _peft_speaks_to_older_transformers():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def with_adapters(model):
    return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))


def added(model):
    """As `model.add_adapter` leaves it, which asks for the newest PEFT."""
    model._hf_peft_config_loaded = True
    return model


NO_MODELS = {
    "peft": (lambda: with_adapters(make_llama()), r"PeftModel.* has adapters .*model = model\.merge_and_unload\(\)"),
    "compiled peft": (lambda: torch.compile(with_adapters(make_llama()), backend="eager"), "merge_and_unload"),
    "added adapters": (lambda: added(make_llama()), "has adapters beside its weights: merge or delete them first"),
    "parallel": (lambda: torch.nn.DataParallel(make_llama()), "expected .*give what it wraps, model.module"),
    "module": (lambda: torch.nn.Linear(2, 2), r"is a torch\.nn\.modules\.linear\.Linear, expected a trans"),
    "none": (lambda: None, "model_or_path is None, expected a transformers model or the folder"),
    "state dict": (lambda: make_llama().state_dict(), "OrderedDict, expected a transformers model"),
    "class": (lambda: type(make_llama()), "is a builtins.type, expected"),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_MODELS)
def test_what_is_no_model_is_told_from_a_path(case):
    make, message = NO_MODELS[case]
    with pytest.raises(ValueError, match=message) as error:
        prune(make(), batches("tt"), **OPTIONS)
    assert "\n" not in str(error.value)
    assert "out is missing" not in str(error.value)


def test_merged_adapters_are_pruned():
    merged = with_adapters(make_llama()).merge_and_unload()
    assert prune(merged, batches("tt"), **OPTIONS).sparsity == pytest.approx(0.5, abs=1e-4)


def text(**changes):
    return {**as_batch(toys("tt")), **changes}


IDS = as_batch(toys("tt"))["input_ids"]
PADDED = torch.ones_like(IDS)
LEFT = PADDED.clone()
LEFT[1, 0] = 0
EMPTY = PADDED.clone()
EMPTY[1] = 0
OUTSIDE = IDS.clone()
OUTSIDE[1, 2] = 10**6
NEGATIVE = IDS.clone()
NEGATIVE[0, 0] = -200
BAD_BATCHES = {
    "tensor": (IDS, "calibration batch 1 is a Tensor: expected the dict that a processor makes"),
    "list": ([1, 2], "calibration batch 1 is a list"),
    "embeddings alone": (
        {"inputs_embeds": torch.zeros(1, 3, 8)},
        r"calibration batch 1 has no input_ids \(the kind of every token .* is not enough\), but inputs_embeds",
    ),
    "nothing": ({}, "calibration batch 1 has no input_ids, but nothing"),
    "lists of ids": (text(input_ids=IDS.tolist()), "calibration batch 1: input_ids is a list"),
    "one sample flat": ({"input_ids": IDS[0]}, r"batch 1: input_ids has shape \[\d+\], expected \[samples, tokens\]"),
    "no tokens": ({"input_ids": IDS[:, :0]}, r"batch 1: input_ids has shape \[2, 0\]"),
    "floats": ({"input_ids": IDS.float()}, r"batch 1: input_ids holds torch\.float32, expected whole numbers"),
    "mask of another shape": (text(attention_mask=PADDED[:, 1:]), r"batch 1: attention_mask has shape .*, input_ids"),
    "left padding": (text(attention_mask=LEFT), "batch 1: attention_mask has padding before tokens: pad on the right"),
    "all padding": (text(attention_mask=EMPTY), "batch 1: row 1 of attention_mask is all padding: leave the"),
    "outside of the vocabulary": (
        text(input_ids=OUTSIDE),
        r"batch 1: input_ids holds 1000000 in row 1, but LlamaForCausalLM has the ids 0 to \d+: use the tokenizer",
    ),
    "negative": (text(input_ids=NEGATIVE), "batch 1: input_ids holds -200 in row 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_BATCHES)
@pytest.mark.parametrize("on_disk", [False, True])
def test_bad_batches_are_named(case, on_disk, tmp_path):
    batch, message = BAD_BATCHES[case]
    model = make_llama()
    before = copy.deepcopy(model.state_dict())
    given, more = (save(model, tmp_path / "source"), {"out": tmp_path / "out"}) if on_disk else (model, {})
    with pytest.raises(ValueError, match=message) as error:
        prune(given, [text(), batch], **more, **OPTIONS)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("given", [IDS, "batches.pt", 3, None])
def test_what_is_no_list_of_batches(given):
    with pytest.raises(ValueError, match=rf"calibration is a {type(given).__name__}: give a list of batches"):
        prune(make_llama(), given, **OPTIONS)


def test_batches_may_come_one_by_one():
    plan = prune(make_llama(), [text()], **OPTIONS).plan
    assert prune(make_llama(), (batch for batch in [text()]), **OPTIONS).plan == plan


def test_placeholders_may_lie_outside_of_the_vocabulary():
    model = make_llava()
    assert model.config.image_token_id == int(as_batch(toys("p"))["input_ids"].max())
    assert len(prune(model, batches(), **OPTIONS).plan) == 21


def test_samples_longer_than_the_model_are_warned_of_once():
    model = make_llama()
    model.config.max_position_embeddings = 4
    with pytest.warns(
        UserWarning, match=r"2 of 2 calibration samples have more tokens \(up to \d+\) than Llama"
    ) as found:
        prune(model, [text()], **OPTIONS)
    assert len([w for w in found if "calibration samples have more tokens" in str(w.message)]) == 1


def test_samples_that_fit_are_not_warned_of(recwarn):
    prune(make_llama(), [text()], **OPTIONS)
    assert not [w for w in recwarn if "more tokens" in str(w.message)]


@pytest.mark.parametrize("positive_only", [False, True])
@pytest.mark.parametrize("factor", [float("inf"), 1e22, 1e35])
def test_infinite_activations_name_the_linear_and_the_sample(factor, positive_only):
    model = make_llava()
    with torch.no_grad():
        model.get_decoder().layers[1].mlp.up_proj.weight.mul_(factor)
    with pytest.raises(
        ValueError, match=r"layers\.1\.mlp\.(up|down)_proj has NaN or infinite .* in calibration sample 0"
    ):
        prune(model, batches(), method={"das": {"positive_only": positive_only}}, **OPTIONS)


def test_samples_of_one_token_are_said_of_the_linear():
    one = {"input_ids": IDS[:, :1]}
    with pytest.raises(ValueError, match=r"layers\.0\.self_attn\.q_proj: nothing to compare in 2 samples"):
        prune(make_llama(), [one], **OPTIONS)


def test_a_spectrum_too_large_for_float32_has_the_exponent_of_a_smaller_one():
    weight = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    assert hill_alpha(weight * 6e37) == pytest.approx(hill_alpha(weight), rel=1e-4)


def test_calibration_data_of_ones_own_is_taken_as_it_is():
    data = CalibrationData.from_batches([text()])
    assert prune(make_llama(), data, **OPTIONS).plan == prune(make_llama(), [text()], **OPTIONS).plan
