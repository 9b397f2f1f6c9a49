"""Annotation: where a node's value comes from, terminal-guided or PPM-augmented.

Section 3.2, "Terminal-guided annotation" (rounds 1 and 2) and "PRM-augmented annotation" (round 3 on); at inference
the PPM takes the place of the ground truth as well.
"""

from __future__ import annotations

from enum import StrEnum

DEAD_END_VALUE = -1.0


class Annotation(StrEnum):
    """Initial values of new children and values of terminals."""

    TERMINAL = "terminal"
    PPM = "ppm"
    INFERENCE = "inference"

    @property
    def needs_scorer(self) -> bool:
        return self is not Annotation.TERMINAL

    @property
    def sees_truth(self) -> bool:
        return self is not Annotation.INFERENCE

    def initial_value(self, score: float | None) -> tuple[int, float]:
        """(N, q) of a new non-terminal child: (0, 0), or the PPM's score as one pseudo-visit, not backed up."""
        if self is Annotation.TERMINAL:
            return 0, 0.0
        return 1, _given(score)

    def terminal_value(self, *, correct: bool | None, score: float | None) -> float | None:
        """v of a terminal: +1 or -1 by the ground truth, or at inference the PPM's own score; None: undecided."""
        if self is Annotation.INFERENCE:
            return _given(score)
        return None if correct is None else 1.0 if correct else -1.0


def _given(score: float | None) -> float:
    if score is None:
        raise ValueError("this annotation needs the PPM's score of every child")
    return score
