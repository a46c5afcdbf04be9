"""Bad input is refused in one line that names the place."""

import json

import pytest
import torch
from PIL import Image

from tamp_lightning.data import sources
from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.methods.method import Method

from ..conftest import TAMP, WANDA, as_batch, calibration, run, toys
from ..stream.conftest import make_llama, make_llava


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


def test_no_batch_and_left_padding_are_refused():
    with pytest.raises(ValueError, match="calibration is empty"):
        CalibrationData.from_batches([])
    batch = as_batch(toys("tt"))
    left = {k: v.flip(1) for k, v in batch.items()}
    with pytest.raises(ValueError, match="pad on the right"):
        CalibrationData.from_batches([batch, left])
    batch["attention_mask"][0] = 0
    with pytest.raises(ValueError, match="batch 0: row 0 of attention_mask is all padding: leave the sample out"):
        CalibrationData.from_batches([batch])


def llava_rows(tmp_path, rows):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(rows))
    return path


TURNS = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "that"}]


def test_too_few_samples(tmp_path):
    path = llava_rows(tmp_path, [{"conversations": TURNS}] * 2)
    with pytest.raises(ValueError, match=r"3 calibration samples wanted, .*calibration\.json has 2"):
        sources.from_llava_json(path, None, 3, 0)
    with pytest.raises(ValueError, match=r"251 calibration samples wanted, easy-VQA's .* has 250"):
        sources.from_easy_vqa(251, 0, 4)
    with pytest.raises(ValueError, match="0 calibration samples wanted"):
        sources.from_easy_vqa(0, 0, 4)


def test_missing_and_damaged_pictures_are_named(tmp_path):
    path = llava_rows(
        tmp_path, [{"image": "a.png", "conversations": TURNS}, {"image": "b.png", "conversations": TURNS}]
    )
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"cannot read picture .*b\.png"):
        sources.from_llava_json(path, None, 2, 0)[1]
    (tmp_path / "a.png").unlink()
    with pytest.raises(
        ValueError, match=r"calibration\.json entry 1: cannot read image .*a\.png: there is no such file"
    ):
        sources.from_llava_json(path, None, 2, 0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[{", r"cannot read .*a\.json: Expecting"),
        ("a.jsonl", '{"conversations": []}\n{', "line 2: no JSON"),
        ("a.json", '{"conversations": []}', "entry 1: expected an object, got list"),
        ("a.json", '[{"text": "x"}]', "entry 1: no turns: expected 'conversations'"),
        ("a.json", "[]", r"a\.json has no rows"),
        ("a.json", None, r"cannot read .*a\.json"),
        ("a.jsonl", None, r"cannot read .*a\.jsonl"),
    ],
)
def test_broken_calibration_files_are_named(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        sources.from_llava_json(tmp_path / name, None, 1, 0)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("turn", [{"from": "tool", "value": "x"}, {"value": "x"}, {"from": "human"}])
def test_a_turn_without_known_speaker_or_text_is_refused(tmp_path, turn):
    with pytest.raises(ValueError, match="conversation turn"):
        sources.from_llava_json(llava_rows(tmp_path, [{"conversations": [TURNS[0], turn]}]), None, 1, 0)


@pytest.mark.parametrize("pictures", [2, 3])
def test_pictures_and_placeholders_that_do_not_match_name_the_row(tmp_path, pictures):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    rows = [{"conversations": TURNS}, {"image": ["a.png"] * pictures, "conversations": TURNS}]
    with pytest.raises(ValueError, match=f"entry 2: has {pictures} pictures but its turns have 1 <image>"):
        sources.from_llava_json(llava_rows(tmp_path, rows), None, 2, 0)
