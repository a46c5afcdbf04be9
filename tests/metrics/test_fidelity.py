"""Distance of a pruned to a dense model on answer tokens."""

import pytest
import torch

from tamp_lightning.metrics import DenseFidelity

GENERATOR = torch.Generator().manual_seed(0)
DENSE = 4 * torch.randn(600, 50, generator=GENERATOR)
PRUNED = DENSE + torch.randn(600, 50, generator=GENERATOR)
LABELS = torch.randint(0, 50, (600,), generator=GENERATOR)


def fidelity(dense, pruned, labels):
    metric = DenseFidelity()
    metric.update(dense, pruned, labels)
    return {name: value.item() for name, value in metric.compute().items()}


def test_against_torch():
    found = fidelity(DENSE, PRUNED, LABELS)
    p, q = DENSE.double().log_softmax(-1), PRUNED.double().log_softmax(-1)
    kl = torch.nn.functional.kl_div(q, p, reduction="batchmean", log_target=True)
    assert found["kl"] == pytest.approx(kl.item(), abs=1e-6)
    nll = torch.nn.functional.cross_entropy(PRUNED.double(), LABELS)
    assert found["nll_pruned"] == pytest.approx(nll.item(), abs=1e-6)
    agree = (DENSE.argmax(1) == PRUNED.argmax(1)).double().mean()
    assert found["top1_agreement"] == pytest.approx(agree.item())


def test_an_unpruned_model_is_at_zero():
    found = fidelity(DENSE, DENSE.clone(), LABELS)
    assert (found["kl"], found["top1_agreement"]) == (0, 1)
    assert found["nll_dense"] == found["nll_pruned"]


def test_batches_do_not_matter():
    parts, whole = DenseFidelity(), DenseFidelity()
    whole.update(DENSE, PRUNED, LABELS)
    for rows in torch.arange(600).split(37):
        parts.update(DENSE[rows], PRUNED[rows], LABELS[rows])
    shape = (6, 100, 50)
    batched = fidelity(DENSE.view(shape), PRUNED.view(shape), LABELS.view(6, 100))
    expected = {name: value.item() for name, value in whole.compute().items()}
    assert {name: value.item() for name, value in parts.compute().items()} == pytest.approx(expected, abs=1e-8)
    assert batched == expected


def test_unlabelled_positions_do_not_count():
    labels = LABELS.masked_fill(torch.arange(600) % 3 > 0, -100)
    assert fidelity(DENSE, PRUNED, labels) == fidelity(DENSE[::3], PRUNED[::3], LABELS[::3])
    assert all(value != value for value in fidelity(DENSE, PRUNED, torch.full((600,), -100)).values())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 1e-4), (torch.bfloat16, 5e-3)])
def test_a_cached_dense_side(dtype, tolerance):
    cached = DENSE.log_softmax(-1).to(dtype)
    assert fidelity(cached, PRUNED, LABELS)["kl"] == pytest.approx(fidelity(DENSE, PRUNED, LABELS)["kl"], abs=tolerance)
    assert fidelity(cached, DENSE, LABELS)["kl"] == pytest.approx(0, abs=tolerance)


def test_entries_that_the_dense_model_rules_out_add_nothing():
    dense, pruned = DENSE.clone(), PRUNED.clone()
    dense[:, 0] = pruned[:, 0] = float("-inf")
    expected = fidelity(DENSE[:, 1:], PRUNED[:, 1:], LABELS.clamp(max=48))
    assert fidelity(dense, pruned, LABELS.clamp(max=48) + 1) == pytest.approx(expected, abs=1e-6)


def test_refusals():
    with pytest.raises(ValueError, match="not finite"):
        fidelity(DENSE, PRUNED.log(), LABELS)
    with pytest.raises(ValueError, match="one shape"):
        fidelity(DENSE, PRUNED[:, :-1], LABELS)
    with pytest.raises(ValueError, match="one shape"):
        fidelity(DENSE, PRUNED, LABELS[:-1])
