"""Names of data sets on the hub."""

from tamp_lightning.benchmarks.registry import BENCHMARKS


def test_the_names_on_the_hub_are_the_new_ones():
    paths = [benchmark.source.path for benchmark in BENCHMARKS.values() if benchmark.source.path]
    assert not [path for path in paths if path.startswith("lmms-lab/")]
    assert {path.partition("/")[0] for path in paths} == {
        "lmms-lab-encoder", "lmms-eval", "lmms-lab-audio", "OpenGVLab", "MUIRBENCH"
    }  # fmt: skip
