"""What the user can put right."""

from __future__ import annotations


class InputError(ValueError):
    """Input that cannot be used: its message says in one line what it is, what is allowed and what to do.

    The command line shows that line and exits with 2. Any other exception of this package, a plain ValueError too, is
    a bug: it keeps its traceback, and the exit code is 1.
    """
