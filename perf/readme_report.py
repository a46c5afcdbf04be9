"""Photograph a run's report with headless Chromium, from its section on quality on.

python perf/readme_report.py runs/RUN docs/report.png
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--window-size=940,1345"]


HIDE = "header, #done, footer { display: none } #quality h2 { margin: 0; border: 0 } main { padding-top: 8px }"


def main() -> None:
    page, picture = Path(sys.argv[1]).resolve() / "report.html", Path(sys.argv[2])
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("no Chromium on the path")
    with tempfile.TemporaryDirectory() as scratch:
        shot, part = Path(scratch) / "shot.png", Path(scratch) / "part.html"
        part.write_text(page.read_text().replace("</style>", HIDE + "</style>"))
        command = [browser, *FLAGS, f"--user-data-dir={scratch}/profile", f"--screenshot={shot}", part.as_uri()]
        subprocess.run(command, check=True, capture_output=True)
        with Image.open(shot) as full:
            full.convert("RGB").save(picture, optimize=True)


if __name__ == "__main__":
    main()
