"""Where the data sets lie on the hub: lmms-eval moved them in July 2026 (its pull request 1416)."""

from __future__ import annotations

from tamp_lightning.data.readers.item import Source

PICTURES = "lmms-lab-encoder"
VIDEOS = "lmms-eval"
SOUNDS = "lmms-lab-audio"


def pictures(name: str, config: str | None, split: str) -> Source:
    """A data set about pictures."""
    return Source(f"{PICTURES}/{name}", config, split)


def videos(name: str, config: str | None, split: str) -> Source:
    """A data set about videos."""
    return Source(f"{VIDEOS}/{name}", config, split)


def sounds(name: str, config: str | None, split: str) -> Source:
    """A data set about sounds."""
    return Source(f"{SOUNDS}/{name}", config, split)
