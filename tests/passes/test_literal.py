"""TAMP and Wanda against slow, literal implementations: one unpadded sample at a time, whole matrices, plain loops."""

import copy
import math

import numpy as np
import pytest
import torch

from tamp_lightning.methods.method import Method
from tamp_lightning.ops.allocation import allocate

from ..conftest import IMAGE_ID, TAMP, WANDA, as_batch, calibration, run, toys
from ..stream.conftest import make_llama, make_llava

LINEARS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]  # fmt: skip


@torch.no_grad()
def observe(model, sample):
    """Forward of one sample with eager attention: every linear's input and output, every block's last attention row."""
    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    seen, rows = {}, []
    blocks = model.get_decoder().layers
    for k, block in enumerate(blocks):
        for name in LINEARS:

            def keep(_m, args, output, key=(k, name)):
                seen[key] = (args[0][0].double().numpy(), output[0].double().numpy())

            block.get_submodule(name).register_forward_hook(keep)
        block.self_attn.register_forward_hook(
            lambda _m, _a, out: rows.append(out[1][0, :, -1].mean(0).double().numpy())
        )
    model(**as_batch([sample]), use_cache=False)
    return seen, rows, (sample.ids == IMAGE_ID).numpy()


def unit(z):
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def means(z, image):
    """Mean cosine inside text, inside image, between them; None where there is nothing to compare."""
    c, found = unit(z) @ unit(z).T, []
    text, picture = np.flatnonzero(~image), np.flatnonzero(image)
    for a, b in ((text, text), (picture, picture), (text, picture)):
        pairs = [c[i, k] for i in a for k in b if a is not b or i < k]
        found.append(sum(pairs) / len(pairs) if pairs else None)
    return found


def amia(z, attention, image):
    """Positions of the tokens that AMIA picks, by the algorithm's own steps."""
    u = unit(z)
    n, cosine = len(u), u @ u.T
    present = [m for m in means(z, image) if m is not None]
    limit = 0.1 * math.sqrt(max(1 - sum(present) / len(present), 0))
    kernel = np.exp(-((u[:, None] - u[None]) ** 2).sum(-1) / 2)
    near = [sorted((k for k in range(n) if k != i), key=lambda k: -cosine[i, k])[:3] for i in range(n)]
    value = [attention[i] + sum(math.exp(cosine[i, k] - 1) * attention[k] for k in near[i]) for i in range(n)]
    picked = []
    while len(picked) < n:
        best = max((i for i in range(n) if i not in picked), key=lambda i: value[i])
        for k in near[best]:
            value[k] -= math.exp(-0.2 * (1 - cosine[best, k])) * max(value[best], 0)
        picked.append(best)
        if kernel.mean() + kernel[np.ix_(picked, picked)].mean() - 2 * kernel[:, picked].mean() < limit:
            break
    return picked


def keep_rows(scores, kept):
    """Row by row the best; weights left over go to the rows whose next best is largest."""
    quota, extra = divmod(kept, len(scores))
    order = np.argsort(-scores, axis=1, kind="stable")
    mask = np.zeros(scores.shape, bool)
    for r in range(len(scores)):
        mask[r, order[r, :quota]] = True
    rows = sorted(range(len(scores)), key=lambda r: -scores[r, order[r, quota]])[:extra] if extra else []
    for r in rows:
        mask[r, order[r, quota]] = True
    return mask


def prune_block(model, k, samples, plan, pick):
    """Mask one block of a model whose earlier blocks are pruned already; names of linears -> masks."""
    observed = [observe(model, s) for s in samples]
    masks = {}
    for name in LINEARS:
        norm = 0.0
        for seen, rows, image in observed:
            inputs, outputs = seen[k, name]
            norm = norm + (inputs[pick(outputs, rows[k], image)] ** 2).sum(0)
        full = f"{model_path(model)}.{k}.{name}"
        weight = model.get_submodule(full).weight.data
        masks[full] = keep_rows(np.abs(weight.double().numpy()) * np.sqrt(norm), plan[full])
        weight[~torch.from_numpy(masks[full])] = 0
    return masks


def model_path(model):
    return "model.language_model.layers" if "llava" in model.config.model_type else "model.layers"


def diversities(model, samples):
    """DAS score of every linear on the dense model: every pair averaged over the samples that have it."""
    observed, scores = [observe(model, s) for s in samples], {}
    for k in range(3):
        for name in LINEARS:
            columns = list(zip(*(means(seen[k, name][1], image) for seen, _, image in observed), strict=True))
            averages = [np.mean([m for m in c if m is not None]) for c in columns if any(m is not None for m in c)]
            scores[f"{model_path(model)}.{k}.{name}"] = float(np.mean([1 - a for a in averages]))
    return scores


def unpack(pruned, name):
    shape = pruned.linears[name]["shape"]
    return np.unpackbits(pruned.masks[name].numpy())[: math.prod(shape)].astype(bool).reshape(shape)


@pytest.mark.parametrize("kinds", ["ptp", "pt"])
def test_tamp_prunes_what_the_literal_algorithm_prunes(kinds):
    samples, sparsity = toys(kinds), 0.5
    pruned = run(make_llava(), calibration(samples, len(samples)), TAMP)

    model = make_llava()
    scores = diversities(model, samples)
    assert scores.keys() == pruned.scores.keys()
    for name, score in scores.items():
        assert pruned.scores[name] == pytest.approx(score, abs=1e-5)
    sizes = {name: model.get_submodule(name).weight.numel() for name in scores}
    plan = allocate(pruned.scores, sizes, sparsity=sparsity, cap=sparsity + 0.1)
    assert len(set(plan.values())) > 3  # scores decide, not sizes alone
    for name, kept in allocate(scores, sizes, sparsity=sparsity, cap=sparsity + 0.1).items():
        assert plan[name] == pytest.approx(kept, abs=2)
    for k in range(3):
        for name, mask in prune_block(model, k, samples, plan, amia).items():
            np.testing.assert_array_equal(unpack(pruned, name), mask, err_msg=name)


def test_amia_leaves_tokens_out_and_so_differs_from_all_tokens():
    samples = toys("ptp")
    some = run(make_llava(), calibration(samples, 1), Method(allocation="uniform"))
    every = run(make_llava(), calibration(samples, 1), WANDA)
    tokens = sum(len(s.ids) for s in samples) / len(samples)
    assert {row["tokens_per_sample"] for row in every.linears.values()} == {tokens}
    assert all(1 <= row["tokens_per_sample"] < tokens for row in some.linears.values())
    assert all(some.linears[name]["sha256"] != every.linears[name]["sha256"] for name in some.linears)


@pytest.mark.parametrize(("make", "kinds"), [(make_llava, "tpp"), (make_llama, "tt")])
def test_all_tokens_with_uniform_allocation_is_the_plain_wanda_loop(make, kinds):
    samples = toys(kinds)
    pruned = run(make(), calibration(samples, 2), WANDA)

    model = make()
    plan = {name: row["kept"] for name, row in pruned.linears.items()}
    assert {row["kept"] / row["size"] for row in pruned.linears.values()} == {0.5}
    for k in range(3):
        for name, mask in prune_block(model, k, samples, plan, lambda *_: slice(None)).items():
            np.testing.assert_array_equal(unpack(pruned, name), mask, err_msg=name)


def test_a_block_sees_its_pruned_predecessors():
    """Masks made on dense activations differ, so the literal comparison above can tell the two apart."""
    samples = toys("tpp")
    pruned = run(make_llava(), calibration(samples, 1), WANDA)
    plan = {name: row["kept"] for name, row in pruned.linears.items()}
    on_dense = prune_block(make_llava(), 1, samples, plan, lambda *_: slice(None))
    assert any((unpack(pruned, name) != mask).any() for name, mask in on_dense.items())
