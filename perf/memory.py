"""Runs a command and samples how much memory its process holds that belongs to no file.

    python perf/memory.py [--every SECONDS] COMMAND ...

Linux only. Counted are RssAnon and RssShmem of /proc/PID/status; pages of mapped files (RssFile) stand apart, for the
system takes them back when it needs them.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

FIELDS = ("RssAnon", "RssShmem", "RssFile")


def held(process: int) -> dict[str, int]:
    """Bytes by field; empty once the process has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    rows = dict(line.split(":", 1) for line in lines)
    return {field: int(rows[field].split()[0]) * 1024 for field in FIELDS if field in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=float, default=0.05, help="seconds between two samples")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    start, peak, peak_file, samples = time.perf_counter(), {}, 0, 0
    with subprocess.Popen(args.command) as process:
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        while process.poll() is None:
            now = held(process.pid)
            peak_file = max(peak_file, now.get("RssFile", 0))
            if now.get("RssAnon", 0) + now.get("RssShmem", 0) > peak.get("bytes", 0):
                total = now["RssAnon"] + now["RssShmem"]
                peak = {"bytes": total, "after_seconds": round(time.perf_counter() - start, 1), **now}
            samples += 1
            time.sleep(args.every)
    peak["gib"] = round(peak.get("bytes", 0) / 2**30, 2)
    found = {"peak": peak, "peak_of_mapped_files": peak_file, "seconds": round(time.perf_counter() - start, 1)}
    print(json.dumps(found | {"samples": samples, "exit_code": process.returncode}, indent=1))
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
