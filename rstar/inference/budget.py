"""The budget of a search at inference: trajectories, tokens or seconds.

Section 4.1: the paper counts trajectories. Users also want limits on tokens and time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

from rstar.protocols import UserError

Limit = TypeVar("Limit", int, float)
_BUDGET = re.compile(r"(?P<count>\d{1,15})(?P<tokens>t?)|(?P<seconds>\d{1,9}(\.\d{1,9})?)s")


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of a search, at least one of them. The one that is reached first ends the search.

    - `trajectories`: rollouts, whether or not they end with an answer.
    - `tokens`: tokens generated for all candidates. The rollout that reaches the limit is the last one.
    - `seconds`: wall-clock time. The search ends at once, in the middle of a rollout.
    """

    trajectories: int | None = None
    tokens: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.trajectories, self.tokens, self.seconds) if limit is not None]
        if not limits or not all(limit > 0 for limit in limits):
            raise UserError(f"a budget needs at least one limit, and each limit must be above 0; got {self}")

    @classmethod
    def read(cls, text: str) -> Budget:
        """Read `16` (trajectories), `20000t` (tokens) or `30s` (seconds). Raises UserError."""
        match = _BUDGET.fullmatch(text.strip())
        if match is None or not float(match["count"] or match["seconds"]):
            raise UserError(
                f"budget {text!r}: give a number of trajectories (16), tokens (20000t) or seconds (30s), above 0"
            )
        if match["seconds"]:
            return cls(seconds=float(match["seconds"]))
        return cls(tokens=int(match["count"])) if match["tokens"] else cls(trajectories=int(match["count"]))

    def within(self, other: Budget) -> Budget:
        """Return the smaller limit of each kind."""
        return Budget(
            _smaller(self.trajectories, other.trajectories),
            _smaller(self.tokens, other.tokens),
            _smaller(self.seconds, other.seconds),
        )

    def __str__(self) -> str:
        limits = (
            (self.trajectories, "trajectory", "trajectories"),
            (self.tokens, "token", "tokens"),
            (self.seconds, "second", "seconds"),
        )
        words = []
        for limit, unit, units in limits:
            if limit is not None:
                number = f"{limit:g}" if isinstance(limit, float) else str(limit)
                words.append(f"{number} {unit if number == '1' else units}")
        return ", ".join(words)


def _smaller(limit: Limit | None, other: Limit | None) -> Limit | None:
    return min((each for each in (limit, other) if each is not None), default=None)
