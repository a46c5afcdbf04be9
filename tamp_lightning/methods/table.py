"""The constants of a method or of one of its members as a table in Markdown, from the classes themselves."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import MISSING, fields, is_dataclass
from itertools import pairwise
from typing import Any, get_type_hints

from tamp_lightning.methods.method import Method


def option_table(name: str) -> str:
    """Option, default and meaning, one row per field.

    Args:
        name: `method` for its own options, or a section such as `amia` or one of a plug-in.

    Raises:
        KeyError: there is no such section.
    """
    section: Any = Method if name == "method" else get_type_hints(Method)[name]
    hints, said = get_type_hints(section), descriptions(section)
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for f in fields(section):
        if not is_dataclass(hints[f.name]):
            option = f.name if name == "method" else f"{name}.{f.name}"
            default = f.default_factory() if f.default_factory is not MISSING else f.default
            shown = list(default) if isinstance(default, tuple) else default
            rows.append(f"| `{option}` | {shown} | {' '.join(said[f.name].split())} |")
    return "\n".join(rows) + "\n"


def descriptions(section: type) -> dict[str, str]:
    """What stands under each field in a dataclass's source, and in those that it extends."""
    found: dict[str, str] = {}
    for known in filter(is_dataclass, reversed(section.__mro__)):
        found |= _own_descriptions(known)
    return found


def _own_descriptions(section: type) -> dict[str, str]:
    definition = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0]
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(str(text.value.value))
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }
