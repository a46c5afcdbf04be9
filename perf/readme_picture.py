"""Draw what the terminal shows at the end of a run.

python perf/readme_picture.py runs/RUN docs/prune-llava.svg
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from rich.console import Console

from tamp_lightning.reporting.table import show_outcome


def main() -> None:
    run, picture = Path(sys.argv[1]), Path(sys.argv[2])
    console = Console(record=True, width=92, file=io.StringIO(), force_terminal=True)
    content = json.loads((run / "run.json").read_text())
    show_outcome(console, json.loads((run / "metrics.json").read_text()), content)
    console.save_svg(str(picture), title=f"tamp run {content['recipe']}")


if __name__ == "__main__":
    main()
