"""The pages in a real browser: nothing to complain about, everything there, on a desktop and on a phone."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tamp_lightning.reporting.compare import write_comparison
from tamp_lightning.reporting.grid_page import write_grid
from tamp_lightning.reporting.html import write_report

from .conftest import EVIL
from .test_grid import row

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
]
SECTIONS = ["done", "quality", "zeros", "why", "next"]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path")]


@pytest.fixture
def browse(tmp_path):
    """Opens a page; gives its document and picture, having seen that the console stays empty."""

    def call(page: Path, width: int, *more: str) -> tuple[str, np.ndarray]:
        shot, profile = tmp_path / "shot.png", tmp_path / "profile"
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},1200", *more]
        held = []
        for what in ("--dump-dom", f"--screenshot={shot}"):
            done = subprocess.run([*command, what, page.as_uri()], capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
            assert "CONSOLE" not in done.stderr
            held.append(done.stdout)
        with Image.open(shot) as picture:
            return held[0], np.asarray(picture.convert("RGB")).astype(int)

    return call


def check_shot(pixels: np.ndarray, width: int) -> None:
    assert pixels.shape[1] == width
    assert pixels.std() > 5
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("name", ["tamp_run", "video_run"])
def test_a_report(browse, request, name, width):
    run = request.getfixturevalue(name)
    folder = run if isinstance(run, Path) else run[0]
    document, pixels = browse(folder / "report.html", width)
    assert re.findall(r'<section id="(\w+)">', document) == SECTIONS
    assert document.count("<svg ") >= 8
    check_shot(pixels, width)


def test_dark_is_dark(browse, tamp_run):
    light = browse(tamp_run[0] / "report.html", 1200)[1]
    dark = browse(tamp_run[0] / "report.html", 1200, "--blink-settings=preferredColorScheme=0")[1]
    assert light[0, 0].mean() > 200
    assert dark[0, 0].mean() < 60
    check_shot(dark, 1200)


def test_nothing_reaches_over_the_edge_of_a_phone(browse, tamp_run, tmp_path):
    """A frame as wide as a phone, which holds the report and reports how wide its content is."""
    page = (tamp_run[0] / "report.html").read_text()
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    (tmp_path / "inner.html").write_text(free)
    (tmp_path / "outer.html").write_text(
        '<iframe id="f" src="inner.html" style="width:360px;height:800px;border:0"></iframe><script>'
        "f.onload = () => document.body.dataset.wide = f.contentDocument.documentElement.scrollWidth</script>"
    )
    document, _ = browse(tmp_path / "outer.html", 1200, "--allow-file-access-from-files")
    assert re.search(r'data-wide="(\d+)"', document)[1] == "360"


def test_hostile_text_does_not_run(browse, hostile, wanda_run, tmp_path):
    report = write_report(hostile)
    comparison = write_comparison([hostile, wanda_run[0]], tmp_path / "comparison.html")
    for page in (report, comparison):
        document, _ = browse(page, 1200)
        title = re.search(r"<title>(.*?)</title>", document)[1]
        assert title != "ran"
        assert "<script" not in document
        assert "onerror=" not in re.sub(r"&lt;.*?&gt;", "", document)


def test_a_comparison(browse, tamp_run, wanda_run, tmp_path):
    page = write_comparison([tamp_run[0], wanda_run[0]], tmp_path / "comparison.html")
    document, pixels = browse(page, 1200)
    assert re.findall(r'<section id="(\w+)">', document) == ["ranking", "how"]
    check_shot(pixels, 1200)


@pytest.mark.parametrize("width", [1200, 390])
def test_a_grid(browse, tmp_path, width):
    rows = [
        row(method, sparsity, 1 + number) for sparsity in (0.5, 0.6) for number, method in enumerate(("wanda", EVIL))
    ]
    page = write_grid(tmp_path, rows, "wanda", -0.9, {"model": "bed", "split": "test", "questions": 7})
    document, pixels = browse(page, width)
    assert re.findall(r'<section id="([\w-]+)">', document) == ["sparsity", "at-50", "at-60", "how"]
    assert "<script" not in document
    check_shot(pixels, width)
