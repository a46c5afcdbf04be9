"""docs/architecture.md: its picture is the import law, and its table names every room.

Run this file to draw the picture anew: python -m tests.test_architecture
"""

import re
from collections.abc import Iterator
from pathlib import Path

from .test_imports import LEAVES, MAY_IMPORT, PACKAGE

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
PICTURE = re.compile(r"(```mermaid\n).*?(```\n)", re.DOTALL)
DOORS = {"", "__main__"}


def arrows() -> Iterator[tuple[str, str]]:
    """The law without what follows from it by way of another room; leaves, which all may import, are left out."""
    rooms = {room: MAY_IMPORT[room] - LEAVES - DOORS for room in sorted(set(MAY_IMPORT) - LEAVES - DOORS)}
    reached: dict[str, set[str]] = {}

    def below(room: str) -> set[str]:
        if room not in reached:
            reached[room] = set()
            for other in rooms[room] - {room}:
                reached[room] |= {other} | below(other)
        return reached[room]

    for room, others in rooms.items():
        others = others - {room}
        beyond = set().union(*(below(other) for other in others))
        yield from ((room, other) for other in sorted(others - beyond))


def picture() -> str:
    return "flowchart TD\n" + "".join(f"    {room} --> {other}\n" for room, other in arrows())


def test_the_picture_is_the_import_law():
    found = PICTURE.search(PAGE.read_text())
    assert found is not None
    assert found[0] == f"```mermaid\n{picture()}```\n", "run: python -m tests.test_architecture"


def test_the_table_names_every_room():
    text = PAGE.read_text()
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert len(rooms) > 15
    assert {room for room in rooms if f"| `{room}/` |" not in text} == set()


if __name__ == "__main__":
    PAGE.write_text(PICTURE.sub(lambda m: m[1] + picture() + m[2], PAGE.read_text()))
