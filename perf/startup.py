"""Time from the shell to the answer of the commands that do no work.

python perf/startup.py
"""

from __future__ import annotations

import subprocess
import sys

from measure import save, seconds

from tamp_lightning.testbeds.checkpoints import resolve


def main() -> None:
    tamp = [sys.executable, "-m", "tamp_lightning"]
    commands = {
        "tamp --help": ["--help"],
        "tamp run wanda --help": ["run", "wanda", "--help"],
        "tamp inspect BED": ["inspect", str(resolve("smol-llava-next"))],
    }
    rows = []
    for name, arguments in commands.items():
        work = lambda arguments=arguments: subprocess.run([*tamp, *arguments], check=True, capture_output=True)  # noqa: E731
        rows.append({"command": name, "seconds": seconds(work, 3)})
    save("startup", rows)


if __name__ == "__main__":
    main()
