"""`tamp report`: the page of a run made again, or several runs compared."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tamp_lightning.errors import InputError
from tamp_lightning.reporting.compare import comparison_pictures, rank, write_comparison
from tamp_lightning.reporting.gallery import run_pictures, save_pictures
from tamp_lightning.reporting.html import write_report
from tamp_lightning.reporting.run import Run, find_runs

COMPARISON = "comparison.html"
MARK = '<meta name="generator" content="tamp-lightning">'


def report(arguments: Sequence[str]) -> Path:
    """Do what the command line says and return the page's path.

    Raises:
        InputError: a folder is no run folder, or `--out` names a file that is no report.
        OSError: the page cannot be written.
    """
    given = _parser().parse_args(arguments)
    folders = find_runs([Path(run) for run in given.runs])
    if len(folders) == 1:
        page = write_report(folders[0], None if given.out is None else _free(Path(given.out)))
    else:
        page = write_comparison(folders, _free(Path(given.out or COMPARISON)))
    if given.figures is not None:
        runs = [Run.read(folder) for folder in folders]
        pictures = run_pictures(runs[0]) if len(runs) == 1 else comparison_pictures(rank(runs))
        save_pictures(pictures, Path(given.figures))
    return page


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tamp report", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, or a folder of run folders")
    parser.add_argument("--figures", metavar="DIR", help="also write the figures there, as PNG and SVG")
    parser.add_argument(
        "--out", metavar="FILE", help=f"the page; default: report.html in the run folder, {COMPARISON} for several runs"
    )
    return parser


def _free(path: Path) -> Path:
    """A path where nothing stands, or an older page of ours.

    Raises:
        InputError: something else stands there.
    """
    if path.exists() and (not path.is_file() or MARK not in path.read_text(encoding="utf-8", errors="replace")[:1000]):
        raise InputError(f"{path} exists and is no report: nothing is overwritten, choose another with --out")
    return path
