"""Trajectories: the paths to final answers, their Q-values, and the choice of SFT data.

Section 3.2 (Q-values), Section 3.4 (SFT data), Section 4.2 (Table 7: the alternatives to step-verified data).
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
    """A path from the question to a final answer; dead ends have none and are not trajectories."""

    steps: tuple[str, ...]  # rendered
    node_ids: tuple[int, ...]
    answer: str
    correct: bool
    qs: tuple[float, ...]
    mean_q: float  # over all steps, the final one included
    min_q: float
    num_tokens: int

    @property
    def found(self) -> int:
        """Smaller where it was found earlier."""
        return self.node_ids[-1]

    @property
    def text(self) -> str:
        return "".join(self.steps)


def trajectories(tree: Tree) -> list[Trajectory]:
    """All trajectories, siblings in sampling order; an undecided terminal gives none."""
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


def best_first(trajectory: Trajectory) -> tuple[float, float, int, int]:
    """Sort key: highest mean Q, then highest minimum Q, then fewest steps, then found first."""
    return -trajectory.mean_q, -trajectory.min_q, len(trajectory.steps), trajectory.found


def sft_choice(found: Sequence[Trajectory], *, per_problem: int = 2) -> list[Trajectory]:
    """The correct trajectories with the highest mean Q."""
    return sorted((one for one in found if one.correct), key=best_first)[:per_problem]


def label_is_suspect(found: Sequence[Trajectory], *, min_correct: float = 0.5) -> bool:
    """Whether a synthetic problem is to be dropped: too small a share of its trajectories is correct."""
    return sum(one.correct for one in found) < min_correct * len(found)


def random_choice(found: Sequence[Trajectory], *, num_chosen: int = 2, seed: int) -> list[Trajectory]:
    """Table 7's random sample: any trajectories, right or wrong."""
    return random.Random(seed).sample(found, min(num_chosen, len(found)))


def rejection_choice(found: Sequence[Trajectory], *, num_chosen: int = 2, seed: int) -> list[Trajectory]:
    """Table 7's rejection sampling: any trajectories with the right answer, whatever their steps are worth."""
    return random_choice([one for one in found if one.correct], num_chosen=num_chosen, seed=seed)
