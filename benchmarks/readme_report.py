"""Photograph the top of a run's report with headless Chromium.

python benchmarks/readme_report.py runs/RUN docs/report.png
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--window-size=980,1640"]


def main() -> None:
    page, picture = Path(sys.argv[1]).resolve() / "report.html", Path(sys.argv[2])
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("no Chromium on the path")
    with tempfile.TemporaryDirectory() as scratch:
        shot = Path(scratch) / "shot.png"
        command = [browser, *FLAGS, f"--user-data-dir={scratch}/profile", f"--screenshot={shot}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)
        with Image.open(shot) as full:
            full.convert("RGB").quantize(128).save(picture, optimize=True)


if __name__ == "__main__":
    main()
