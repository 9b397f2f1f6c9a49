"""Trajectories: the paths to final answers, their Q-values, and the choice of SFT data.

Section 3.2 (Q-values), Section 3.4 (SFT data) and Table 7 (the alternatives to step-verified data).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from rstar.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A path from the question to a final answer. A path to a dead end is not a trajectory."""

    steps: tuple[str, ...]  # rendered
    node_ids: tuple[int, ...]  # of the steps
    answer: str
    correct: bool
    qs: tuple[float, ...]  # of the steps
    mean_q: float  # over all steps, including the final one
    min_q: float
    num_tokens: int

    @property
    def terminal_id(self) -> int:
        """Id of the terminal node. Of two trajectories of a tree, the one found first has the smaller id."""
        return self.node_ids[-1]

    @property
    def text(self) -> str:
        """The whole response."""
        return "".join(self.steps)


def trajectories(tree: Tree) -> list[Trajectory]:
    """Return all trajectories of a tree, siblings in sampling order. An undecided terminal gives none."""
    return [_trajectory(node) for node in tree.walk() if node.terminal and node.correct is not None]


def _trajectory(terminal: Node) -> Trajectory:
    path = terminal.path()
    qs = tuple(node.q for node in path)
    return Trajectory(
        steps=tuple(node.rendered for node in path),
        node_ids=tuple(node.id for node in path),
        answer=terminal.answer or "",
        correct=terminal.correct is True,
        qs=qs,
        mean_q=reduce(add, qs) / len(qs),  # not sum(): its last bit depends on the Python version
        min_q=min(qs),
        num_tokens=sum(node.num_tokens for node in path),
    )


def sft_choice(candidates: Sequence[Trajectory], *, num_chosen: int = 2) -> list[Trajectory]:
    """Return the correct trajectories with the highest mean Q (Section 3.4)."""
    return sorted((trajectory for trajectory in candidates if trajectory.correct), key=_rank)[:num_chosen]


def random_choice(candidates: Sequence[Trajectory], *, num_chosen: int = 2, seed: int) -> list[Trajectory]:
    """Return random trajectories, correct or not (Table 7, "Random sample")."""
    return random.Random(seed).sample(candidates, min(num_chosen, len(candidates)))


def rejection_choice(candidates: Sequence[Trajectory], *, num_chosen: int = 2, seed: int) -> list[Trajectory]:
    """Return random correct trajectories, whatever their Q-values (Table 7, "Rejection sampling")."""
    correct = [trajectory for trajectory in candidates if trajectory.correct]
    return random_choice(correct, num_chosen=num_chosen, seed=seed)


def label_is_suspect(candidates: Sequence[Trajectory], *, min_correct: float = 0.5) -> bool:
    """Return whether a synthetic problem is to be dropped: too small a share of its trajectories is correct, or none
    was decided."""
    return not candidates or sum(trajectory.correct for trajectory in candidates) < min_correct * len(candidates)


def _rank(trajectory: Trajectory) -> tuple[float, float, int, int]:
    """Return a sort key: highest mean Q, then highest minimum Q, then fewest steps, then found first."""
    return -trajectory.mean_q, -trajectory.min_q, len(trajectory.steps), trajectory.terminal_id
