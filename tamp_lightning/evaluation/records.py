"""What one model said to one question."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """The answer to a question, as it is kept on disk."""

    position: int
    """Of the question in its task."""
    id: str
    reply: str = ""
    bad: str | None = None
    """Why it was not asked."""
    cut: bool = False
    """Whether the reply ends within its reasoning."""
    nll: tuple[float, ...] = ()
    """Scoring by likelihood: nats of each candidate, summed over its tokens."""
    lengths: tuple[int, ...] = ()
    """Tokens of each candidate."""
    certainty: float | None = None
    """Probability of the right answer among those that are allowed."""
    kl: float | None = None
    """KL to the dense model in nats, mean over the tokens of the right answer."""
    fidelity: tuple[int, ...] = ()
    """Sums over these tokens, for `metrics.fidelity.means`."""
