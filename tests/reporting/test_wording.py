"""What methods and figures are called."""

import pytest

from tamp_lightning.reporting.wording import (
    benchmark_label,
    figure,
    in_words,
    method_name,
    method_sentence,
    moves_weights,
    p_value,
    reads_data,
)

WANDA = {"tokens": "all", "allocation": "uniform", "solver": "wanda", "pattern": "row"}


@pytest.mark.parametrize(
    ("choices", "name"),
    [
        ({}, "Wanda"),
        ({"tokens": "amia", "allocation": "das"}, "TAMP"),
        ({"allocation": "owl"}, "OWL"),
        ({"solver": "sparsegpt", "pattern": "2:4"}, "SparseGPT 2:4"),
        ({"tokens": "amia", "allocation": "owl"}, "amia × owl × wanda"),
        ({"solver": "not_installed"}, "all × uniform × not_installed"),
    ],
)
def test_published_names(choices, name):
    assert method_name(WANDA | choices) == name


def test_what_a_plug_in_that_is_not_installed_does_is_its_name():
    assert in_words("solver", "not_installed") == "not_installed"
    assert method_sentence(WANDA | {"solver": "not_installed"}).endswith(
        "zeros may stand " + in_words("pattern", "row") + "."
    )


def test_steps_before_and_after_the_solver_are_told():
    told = method_sentence(WANDA | {"correction": {"tau": 0.5}, "reconstruct": {"steps": 3}})
    assert "first corrected for what earlier blocks lost; each block is then reconstructed by" in told
    assert "reconstructed, norms and biases too, by" in method_sentence(
        WANDA | {"reconstruct": {"steps": 3, "norms": True}}
    )


@pytest.mark.parametrize(
    "step",
    [{"correction": {"tau": 0.5}}, {"refit": {"steps": 1}}, {"reconstruct": {"steps": 1}}, {"polish": {"steps": 1}}],
)
def test_a_solver_that_only_masks_is_not_all_there_is(step):
    magnitude = WANDA | {"solver": "magnitude"}
    assert not moves_weights(magnitude)
    assert not reads_data(magnitude)
    assert moves_weights(magnitude | step)
    assert reads_data(magnitude | step)


def test_numbers():
    assert (figure(-1.25, True), figure(0.5, True, 2), figure(3)) == ("−1.2", "+0.50", "3.0")
    assert (p_value(0.0004), p_value(0.0312)) == ("< 0.001", "0.031")
    assert (benchmark_label("yes_no"), benchmark_label("pope")) == ("yes/no, balanced", "pope")
