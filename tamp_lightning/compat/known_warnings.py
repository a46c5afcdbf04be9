"""Warnings of Lightning that are about itself, or about what is meant to be as it is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

KNOWN: tuple[tuple[type[Warning], str], ...] = (
    (UserWarning, r".*does not have many workers.*"),
    (UserWarning, r".*Found .* module\(s\) in eval mode.*"),
    (UserWarning, r".*GPU available but not used.*"),
    (FutureWarning, r".*LeafSpec.*"),
)


def ignore_known_warnings() -> None:
    """Do not show them from here on."""
    for category, text in KNOWN:
        warnings.filterwarnings("ignore", message=text, category=category)


@contextmanager
def without_known_warnings() -> Iterator[None]:
    """Do not show them inside."""
    with warnings.catch_warnings():
        ignore_known_warnings()
        yield
