"""Where the questions of benchmarks are read from."""

import pytest

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data.readers.item import Source
from tamp_lightning.tasks.benchmark_sources import download_line, source_of, sources_of


def test_the_recipe_goes_over_the_benchmarks_own():
    own = BENCHMARKS["pope"].source
    assert source_of("pope", {}) == own
    assert source_of("pope", {"pope": "here"}).path == "here"
    found = source_of("pope", {"pope": {"split": "adversarial", "limit": 5}})
    assert (found.path, found.split, found.limit) == (own.path, "adversarial", 5)


def test_what_is_downloaded_is_said_once(tmp_path):
    lines = []
    found = sources_of(["pope", "mmbench"], {"mmbench": str(tmp_path), "gqa": "unasked"}, lines.append)
    assert list(found) == ["pope", "mmbench"]
    assert len(lines) == 1
    assert lines[0].startswith(f"pope: {BENCHMARKS['pope'].source.path} (")
    for path in (None, str(tmp_path), "./gone", "/gone"):  # local, or nothing
        assert download_line("pope", Source(path)) is None


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"pop": "x"}, r"data has 'pop', expected .* \(did you mean 'pope'\?\)"),
        ({"pope": 3}, "data.pope is 3, expected a path or a section with path,"),
        ({"pope": {"pth": "x"}}, "data.pope is {'pth': 'x'}, expected a path or a section"),
    ],
)
def test_what_is_no_data_is_refused(data, complaint):
    with pytest.raises(ValueError, match=complaint):
        sources_of(["pope"], data, print)


def test_a_benchmark_without_data_on_the_hub_says_what_to_give():
    name = next(name for name, benchmark in BENCHMARKS.items() if benchmark.source.path is None)
    with pytest.raises(ValueError, match=rf"{name} has no data on the hub that we know of: give data\.{name}\.path"):
        source_of(name, {})
