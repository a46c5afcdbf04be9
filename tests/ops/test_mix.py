import math

import pytest
import torch

from tamp_lightning.ops.hessian import weighted_gram
from tamp_lightning.ops.mix import mix_statistics
from tamp_lightning.ops.stats import weighted_square_sum


def test_by_hand_in_every_form():
    statistics = torch.tensor([[4.0, 8], [30, 10]])
    expected = [2.5, 2.5]  # .5 * [4 8] / 4 + 2 * [30 10] / 30, of which the second is rounded
    for given in (statistics, list(statistics)):
        got = mix_statistics(given, [4, 30], torch.tensor([0.5, 2.0]))
        assert got.tolist() == pytest.approx([expected[0], 1 + 2 / 3])
    named = {"text": statistics[0], "image": statistics[1]}
    by_name = mix_statistics(named, {"image": 30, "text": 4}, {"text": 0.5, "image": 2.0})
    assert torch.equal(by_name, mix_statistics(statistics, [4, 30], [0.5, 2.0]))
    assert statistics.tolist() == [[4, 8], [30, 10]]


def test_shares_by_count_are_the_plain_statistic():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 40, 6, generator=generator)
    modality = torch.randint(0, 3, (2, 40), generator=generator)
    masses = {m: float((modality == m).sum()) for m in range(3)}
    for statistic, plain in (
        ({m: weighted_gram(inputs, modality == m) for m in range(3)}, weighted_gram(inputs, torch.ones(2, 40))),
        (
            {m: weighted_square_sum(inputs, modality == m).sum(0) for m in range(3)},
            weighted_square_sum(inputs, torch.ones(2, 40)).sum(0),
        ),
    ):
        got = mix_statistics(statistic, masses, {m: n / 80 for m, n in masses.items()})
        torch.testing.assert_close(got, plain / 80, rtol=1e-5, atol=1e-6)
        assert got.dtype == plain.dtype


def test_absent_and_unwanted_modalities_are_not_read():
    statistics = torch.tensor([[4.0, 8], [math.nan, 0], [math.inf, 1]])
    assert mix_statistics(statistics, [4, 0, 7], [1, 1, 0]).tolist() == [1, 2]
    for masses, lambdas in (([0, 0, 7], [1, 1, 0]), ([4, 1, 1], [0, 0, 0])):
        with pytest.raises(ValueError, match="no modality has both"):
            mix_statistics(statistics, masses, lambdas)


def test_refuses():
    with pytest.raises(ValueError, match=r"different modalities: \['a'\], \['b'\], \['a'\]"):
        mix_statistics({"a": torch.ones(2)}, {"b": 1}, {"a": 1})
    with pytest.raises(ValueError, match="name different modalities"):
        mix_statistics(torch.ones(2, 3), [1, 1], [1])
    with pytest.raises(ValueError, match="mass of 1 is -1"):
        mix_statistics(torch.ones(2, 3), [1, -1], [1, 1])
    with pytest.raises(ValueError, match="lambda of a is nan"):
        mix_statistics({"a": torch.ones(2)}, {"a": 1}, {"a": math.nan})
