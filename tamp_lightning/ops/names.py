"""What a linear's full name says of where it stands."""

import re

NUMBERED = re.compile(r"\.(\d+)\.")


def place_of(name: str) -> tuple[int, str]:
    """Number of a linear's block, and its name inside it without the number of an expert.

    The first number in a name is its block's; where there is none, block 0 and the whole name.

    Examples:
        >>> place_of("model.layers.3.mlp.experts.17.gate_proj")
        (3, 'mlp.experts.*.gate_proj')
    """
    number = NUMBERED.search(name)
    if number is None:
        return 0, name
    return int(number[1]), NUMBERED.sub(".*.", name[number.end() - 1 :]).removeprefix(".")
