"""docs/methods.md: its option tables are those of the dataclasses, and it names every member.

Run this file to write the tables anew: python -m tests.methods.test_docs
"""

import ast
import inspect
import re
import textwrap
from dataclasses import MISSING, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import get_args, get_type_hints

from tamp_lightning.methods.method import Method

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
TABLE = re.compile(r"(<!-- options: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def descriptions(section):
    """What stands under each field of a dataclass."""
    body = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0].body
    pairs = pairwise(body)
    return {a.target.id: b.value.value for a, b in pairs if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr)}


def table(name):
    section = Method if name == "method" else get_type_hints(Method)[name]
    said, rows = descriptions(section), ["| option | default | meaning |", "|---|---|---|"]
    for f in fields(section):
        if not is_dataclass(get_type_hints(section)[f.name]):
            assert f.default is not MISSING, f"{name}.{f.name}"
            option = f.name if name == "method" else f"{name}.{f.name}"
            default = list(f.default) if isinstance(f.default, tuple) else f.default
            rows.append(f"| `{option}` | {default} | {said[f.name]} |")
    return "\n".join(rows) + "\n"


def fresh(text):
    return TABLE.sub(lambda m: m[1] + table(m[2]) + m[3], text)


def test_tables_are_those_of_the_code():
    text = PAGE.read_text()
    assert fresh(text) == text, "run: python -m tests.methods.test_docs"
    sections = {f.name for f in fields(Method) if is_dataclass(get_type_hints(Method)[f.name])}
    assert {m[2] for m in TABLE.finditer(text)} == sections | {"method"}


def test_every_member_has_a_paragraph():
    text, hints = PAGE.read_text(), get_type_hints(Method)
    members = [m for choice in ("tokens", "allocation", "solver") for m in get_args(hints[choice])]
    assert len(members) == 18
    for member in [*members, "row", "matrix", "'n:m'"]:
        assert f"**{member}**" in text, member


if __name__ == "__main__":
    PAGE.write_text(fresh(PAGE.read_text()))
