"""The solution of a problem: the best trajectory that a search at inference found, and what the search cost.

Section 4.1, "Inference".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rstar.inference.thinking import ScoredTrajectory
from rstar.protocols import InfrastructureError, PolicyError


class Ending(StrEnum):
    """Why a search ended."""

    BUDGET = "budget"
    CLOSED = "closed"  # the tree has no open node left
    STOPPED = "stopped"  # by `Solving.stop`
    UNFINISHED = "unfinished"  # the search still runs, or was cancelled, or failed


@dataclass(frozen=True, slots=True)
class Solution:
    """What a search has found so far, and what that cost."""

    best: ScoredTrajectory | None  # the one with the best score, of equal ones the one found first
    runner_up: ScoredTrajectory | None  # the best one whose answer is not equivalent to that of `best`
    majority: str | None
    weighted_majority: str | None
    num_trajectories: int  # with an answer
    num_rollouts: int
    num_tokens: int  # generated for all candidates, except those of an interrupted expansion
    prompt_tokens: int  # of the question's prompt, counted once
    seconds: float
    ending: Ending
    unresponsive: type[InfrastructureError] | None = None  # error of the engine that never answered in the whole search

    @property
    def failure(self) -> InfrastructureError | None:
        """The error to raise if an engine never answered in the whole search; None otherwise."""
        if self.unresponsive is None:
            return None
        name = "policy" if self.unresponsive is PolicyError else "PPM"
        return self.unresponsive(
            f"the {name} gave no answer in {self.seconds:.1f} s: its engine is down, or needs more time"
        )
