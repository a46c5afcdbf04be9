"""Recipe files: YAML in which 1e-3 is a number and no key stands twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tamp_lightning.errors import InputError


class UsageError(InputError):
    """A recipe or command line that cannot be used."""


class Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, as jsonargparse has it; YAML 1.1 wants 1.0e-3."""


Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d[\d_]*[eE][-+]?\d+$"), list("-+0123456789"))


def read_yaml(text: str) -> Any:
    """Value of a YAML text.

    Raises:
        yaml.YAMLError: it is none.
    """
    return yaml.load(text, Loader)


def read_mapping(path: Path) -> dict[str, Any]:
    """Content of a recipe file.

    Raises:
        UsageError: unreadable, no YAML, empty, no mapping, or a key that stands twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        twice = next(_repeated(yaml.compose(text, yaml.SafeLoader)), None)
        content = read_yaml(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        why = " ".join(str(error).replace('"<unicode string>", ', "").split())
        raise UsageError(f"{path.name} is no readable YAML: {why}") from None
    if content is None:
        raise UsageError(f"{path.name} is empty; a recipe starts with `task: prune`")
    if not isinstance(content, dict):
        raise UsageError(f"{path.name} is {content!r}; a recipe is keys and values, such as `task: prune`")
    if twice:
        raise UsageError(f"{path.name}: key {twice} stands twice")
    return content


def _repeated(node: yaml.Node | None, prefix: str = "") -> Iterator[str]:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            if name in seen:
                yield name
            seen.add(name)
            yield from _repeated(value, f"{name}.")
