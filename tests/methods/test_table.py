"""docs/methods.md: its option tables are those of the dataclasses, and it names every member.

Run this file to write the tables anew: python -m tests.methods.test_table
"""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_args, get_type_hints

from tamp_lightning.methods.method import Method
from tamp_lightning.methods.table import option_table

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
TABLE = re.compile(r"(<!-- options: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fresh(text):
    return TABLE.sub(lambda m: m[1] + option_table(m[2]) + m[3], text)


def test_tables_are_those_of_the_code():
    text = PAGE.read_text()
    assert fresh(text) == text, "run: python -m tests.methods.test_table"
    sections = {f.name for f in fields(Method) if is_dataclass(get_type_hints(Method)[f.name])}
    assert {m[2] for m in TABLE.finditer(text)} == sections | {"method"}


def test_every_member_has_a_paragraph():
    text, hints = PAGE.read_text(), get_type_hints(Method)
    members = [m for choice in ("tokens", "allocation", "solver") for m in get_args(hints[choice])]
    assert len(members) > 3
    for member in [*members, "row", "matrix", "'n:m'"]:
        assert f"**{member}**" in text, member


if __name__ == "__main__":
    PAGE.write_text(fresh(PAGE.read_text()))
