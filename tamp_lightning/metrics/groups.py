"""Rows of a dataset by a label each row carries (task, category, duration, ...)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Groups = Sequence[str | None] | Mapping[str, Sequence[str | None]]


def rows_by_group(groups: Groups | None, num_rows: int) -> dict[str, Tensor]:
    """Row numbers of each group.

    Args:
        groups: one label per row, or several such lists by name. A row labelled ``None`` is in no group.
        num_rows: rows of the dataset.

    Returns:
        ``{label: int64[n]}``, or ``{"name/label": int64[n]}`` for several lists; labels in sorted order.

    Raises:
        ValueError: if a list does not have one label per row.
    """
    if groups is None:
        return {}
    if isinstance(groups, Mapping):
        found = {name: rows_by_group(labels, num_rows) for name, labels in groups.items()}
        return {f"{name}/{label}": rows for name, part in found.items() for label, rows in part.items()}
    if len(groups) != num_rows:
        raise ValueError(f"Expected one group per sample ({num_rows}), but got {len(groups)}.")
    rows: dict[str, list[int]] = {}
    for row, label in enumerate(groups):
        if label is not None:
            rows.setdefault(label, []).append(row)
    return {label: torch.tensor(rows[label]) for label in sorted(rows)}


def group_means(values: Tensor, rows: Mapping[str, Tensor]) -> dict[str, float]:
    """Mean value of each group over its rows that are not NaN; a group without any is left out."""
    means = {label: values[members].nanmean().item() for label, members in rows.items()}
    return {label: mean for label, mean in means.items() if mean == mean}


def prefixed(prefix: str, numbers: Mapping[str, float]) -> dict[str, float]:
    """The same numbers under ``prefix/name``."""
    return {f"{prefix}/{name}": number for name, number in numbers.items()}
