"""Error correction, refit and the choice of a mix against slow, literal implementations, through the engine."""

import dataclasses

import numpy as np
import pytest
import torch

from tamp_lightning.methods.method import Method
from tamp_lightning.methods.options import Correction, Refit
from tamp_lightning.methods.tilt import Diversity

from ..conftest import as_batch, calibration, run, toys
from ..stream.conftest import IMAGE_ID, make_llama, make_llava
from .test_literal import LINEARS, keep_rows, model_path, observe, unpack


def test_correction_fits_the_dense_outputs_from_the_pruned_inputs():
    samples, tau = toys("ptpptpp"), 0.7
    model, dense = make_llava(), make_llava()
    correction = Correction(tau=tau, damp=0.01)
    pruned = run(model, calibration(samples, 3), Method(tokens="all", allocation="uniform", correction=correction))
    before = make_llava()  # block 0 as it was pruned, block 1 dense
    before.get_decoder().layers[0].load_state_dict(model.get_decoder().layers[0].state_dict())
    pairs = [(observe(dense, s)[0], observe(before, s)[0]) for s in samples]
    for name in LINEARS:
        full = f"{model_path(dense)}.1.{name}"
        x_dense, x_pruned = (np.concatenate([pair[side][1, name][0] for pair in pairs]) for side in (0, 1))
        if "proj" in name and name.split(".")[1] not in ("q_proj", "k_proj", "v_proj"):
            continue  # inside a block both inputs depend on weights that are not final yet
        gram, weight = x_pruned.T @ x_pruned, dense.get_submodule(full).weight.detach().double().numpy()
        pull = 0.01 * np.diag(gram).mean() * np.eye(len(gram))
        wanted = weight + tau * (weight @ (x_dense.T @ x_pruned - gram) @ np.linalg.inv(gram + pull))
        mask = keep_rows(np.abs(wanted) * np.sqrt(np.diag(gram)), pruned.linears[full]["kept"])
        agree = unpack(pruned, full) == mask
        assert agree.mean() > 0.99
        got = model.get_submodule(full).weight.detach().double().numpy()
        np.testing.assert_allclose(got[agree], (wanted * mask)[agree], rtol=2e-2, atol=1e-4)
        assert np.abs(got - weight * mask).max() > 1e-3


@pytest.mark.parametrize("tokens", ["all", "amia"])
def test_a_refit_solves_each_row_on_all_tokens_under_the_mask_of_the_rule(tokens):
    samples = toys("ptpptpp")
    plain, fitted = make_llava(), make_llava()
    method = Method(tokens=tokens, allocation="uniform")
    first = run(plain, calibration(samples, 3), method)
    second = run(fitted, calibration(samples, 3), dataclasses.replace(method, refit=Refit(steps=100, damp=0.01)))
    seen = [observe(make_llava(), sample)[0] for sample in samples]
    full = f"{model_path(plain)}.0.self_attn.q_proj"  # the first block sees what the dense model does
    assert first.linears[full]["sha256"] == second.linears[full]["sha256"]
    inputs = np.concatenate([one[0, "self_attn.q_proj"][0] for one in seen])
    gram = (inputs.T @ inputs).astype(np.float64)
    gram += 0.01 * np.diag(gram).mean() * np.eye(len(gram))
    dense = make_llava().get_submodule(full).weight.detach().double().numpy()
    got, mask = fitted.get_submodule(full).weight.detach().double().numpy(), unpack(second, full)
    for row, keep in enumerate(mask):
        wanted = np.linalg.solve(gram[np.ix_(keep, keep)], (gram @ dense[row])[keep])
        np.testing.assert_allclose(got[row, keep], wanted, rtol=1e-2, atol=1e-3)
    assert not got[~mask].any()


def test_modality_mix_keeps_the_mix_that_text_likes_best():
    samples, lambdas = toys("ptppptpp"), (0.0, 0.1, 0.3, 1.0)
    pruned = run(make_llava(), calibration(samples, 3), Method(tokens="modality_mix", allocation="uniform"))
    judges, learners = [samples[3], samples[7]], [s for i, s in enumerate(samples) if i % 4 != 3]
    dense, errors, masks = make_llava(), {}, {}
    seen = [observe(dense, s) for s in learners]
    for lam in lambdas:
        model = make_llava()
        masks[lam] = {}
        for name in LINEARS:
            full, norm = f"{model_path(model)}.0.{name}", 0.0
            for modality, weight in ((False, 1.0), (True, lam)):
                rows = np.concatenate([s[0, name][0][image == modality] for s, _, image in seen])
                norm = norm + weight * (rows**2).mean(0)
            weights = model.get_submodule(full).weight.data
            masks[lam][full] = keep_rows(np.abs(weights.double().numpy()) * np.sqrt(norm), pruned.linears[full]["kept"])
            weights[~torch.from_numpy(masks[lam][full])] = 0
        errors[lam] = sum(block_error(model, dense, s, s.ids != IMAGE_ID) for s in judges)
    best = min(errors, key=errors.get)
    for full, mask in masks[best].items():
        assert pruned.linears[full]["lambda"] == best
        np.testing.assert_array_equal(unpack(pruned, full), mask, err_msg=full)


def test_the_width_of_a_tilt_is_the_one_that_held_out_samples_like_best():
    samples, rule = toys("ptppptpp"), Diversity(widths=(-0.2, 0.0, 0.2), within="all")
    method = Method(0.6, tokens="all", allocation="diversity", diversity=rule)
    pruned = run(make_llava(), calibration(samples, 3), method)
    sizes = {name: row["size"] for name, row in pruned.linears.items()}
    assert sum(row["kept"] for row in pruned.linears.values()) == round(0.4 * sum(sizes.values()))
    judges, learners = [samples[3], samples[7]], [s for i, s in enumerate(samples) if i % 4 != 3]
    dense, errors, masks = make_llava(), {}, {}
    seen = [observe(dense, s)[0] for s in learners]
    for width in rule.widths:
        model, kept = make_llava(), rule.kept_at(width, sizes, 0.6, pruned.scores)
        masks[width] = {}
        for name in LINEARS:
            full = f"{model_path(model)}.0.{name}"
            norm = (np.concatenate([s[0, name][0] for s in seen]) ** 2).sum(0)
            weights = model.get_submodule(full).weight.data
            masks[width][full] = keep_rows(np.abs(weights.double().numpy()) * np.sqrt(norm), kept[full])
            weights[~torch.from_numpy(masks[width][full])] = 0
        errors[width] = sum(block_error(model, dense, s, slice(None)) for s in judges)
    best = min(errors, key=errors.get)
    for full, mask in masks[best].items():
        assert pruned.linears[full]["width"] == best
        np.testing.assert_array_equal(unpack(pruned, full), mask, err_msg=full)
    assert len(set(errors.values())) == 3


@torch.no_grad()
def block_error(model, dense, sample, tokens):
    outputs = []
    for m in (model, dense):
        handle = m.get_decoder().layers[0].register_forward_hook(lambda _m, _a, out: outputs.append(out[0].double()))
        m(**as_batch([sample]), use_cache=False)
        handle.remove()
    return float(((outputs[0] - outputs[1])[tokens] ** 2).sum())


def test_modality_mix_with_nobody_to_judge():
    with pytest.raises(ValueError, match="held_out leaves no calibration sample to judge by"):
        run(make_llama(), calibration(toys("tt"), 1), Method(tokens="modality_mix", allocation="uniform"))
