"""Annotation: where the values of nodes come from.

Section 3.2, "Terminal-guided annotation" (rounds 1 and 2) and "PRM-augmented annotation" (from round 3 on). At
inference the PPM also replaces the ground truth.
"""

from __future__ import annotations

from enum import StrEnum

DEAD_END_VALUE = -1.0


class Annotation(StrEnum):
    """The rule for the initial values of new children and for the values of terminals."""

    TERMINAL = "terminal"
    PPM = "ppm"
    INFERENCE = "inference"

    @property
    def needs_scorer(self) -> bool:
        """Whether the PPM scores every child."""
        return self is not Annotation.TERMINAL

    @property
    def sees_truth(self) -> bool:
        """Whether terminals are compared with the ground truth."""
        return self is not Annotation.INFERENCE

    def initial_value(self, score: float | None) -> tuple[int, float]:
        """Return (N, q) of a new non-terminal child.

        Terminal-guided: (0, 0). Otherwise the PPM's score is one pseudo-visit, which is not backed up.
        """
        if self is Annotation.TERMINAL:
            return 0, 0.0
        return 1, _require(score)

    def terminal_value(self, *, correct: bool | None, score: float | None) -> float | None:
        """Return the value v of a terminal; None if it is undecided.

        In data generation v is +1 if the answer is correct, else -1. At inference it is the PPM's score.
        """
        if self is Annotation.INFERENCE:
            return _require(score)
        return None if correct is None else 1.0 if correct else -1.0


def _require(score: float | None) -> float:
    if score is None:
        raise ValueError("this annotation needs the PPM's score of every child")
    return score
