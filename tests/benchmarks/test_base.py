"""What every benchmark says of itself."""

import pytest

from tamp_lightning.benchmarks.registry import BENCHMARKS


@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_a_benchmark_says_of_itself(name):
    benchmark = BENCHMARKS[name]
    assert benchmark.name == name
    assert benchmark.about
    assert (benchmark.candidates is None) == (benchmark.answer_index is None)
