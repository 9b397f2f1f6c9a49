"""Preference pairs for the PPM: which of two steps, or of two whole trajectories, the Q-values prefer.

Section 3.3, "Process preference model". Loss for a group of P positives and M negatives with one prefix:
-1/(P*M) * sum of log sigmoid(r+ - r-).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rstar.trajectories import Trajectory, best_first, trajectories
from rstar.tree import Node, Tree

PER_SIDE = 2


class PairKind(StrEnum):
    STEP = "step"
    TRAJECTORY = "trajectory"


@dataclass(frozen=True, slots=True)
class Pair:
    """A preferred and a rejected continuation of one prefix; that of a trajectory pair is the question alone."""

    kind: PairKind
    prefix: tuple[str, ...]  # rendered steps
    chosen: tuple[str, ...]  # rendered steps after the prefix: one, or a whole trajectory
    rejected: tuple[str, ...]
    margin: float  # Q+ - Q-; of mean Q for trajectories
    chosen_q: float
    rejected_q: float
    prefix_id: int  # the node they continue: pairs with the same kind and prefix_id are one group
    chosen_id: int
    rejected_id: int

    @property
    def group(self) -> tuple[str, int]:
        return self.kind.value, self.prefix_id


def extract_pairs(tree: Tree, *, per_side: int = PER_SIDE) -> list[Pair]:
    """All pairs of a tree, unfiltered; none where it is all right or all wrong."""
    return [*step_pairs(tree, per_side=per_side), *trajectory_pairs(tree, per_side=per_side)]


def step_pairs(tree: Tree, *, per_side: int = PER_SIDE) -> list[Pair]:
    """Pairs of intermediate steps, node by node: positives lead to a right answer, negatives to a failure."""
    right, failed = _evidence(tree)
    return [pair for node in tree.walk() for pair in _step_group(node, right, failed, per_side)]


def _evidence(tree: Tree) -> tuple[set[int], set[int]]:
    """Ids of the nodes with a correct answer at or below them, and of those with a wrong answer or dead end."""
    right: set[int] = set()
    failed: set[int] = set()
    for node in reversed(list(tree.walk())):
        if node.correct is True or any(child.id in right for child in node.children):
            right.add(node.id)
        if node.correct is False or node.dead_end or any(child.id in failed for child in node.children):
            failed.add(node.id)
    return right, failed


def _step_group(node: Node, right: set[int], failed: set[int], per_side: int) -> list[Pair]:
    steps = [child for child in node.children if not child.terminal]
    positives = sorted((step for step in steps if step.id in right), key=lambda step: -step.q)[:per_side]
    others = [step for step in steps if step.id in failed and step not in positives]
    negatives = sorted(others, key=lambda step: step.q)[:per_side]
    sides = [(chosen, rejected) for chosen in positives for rejected in negatives if chosen.q > rejected.q]
    if not sides:
        return []
    prefix = tuple(node.prefix())
    return [
        Pair(
            PairKind.STEP,
            prefix=prefix,
            chosen=(chosen.rendered,),
            rejected=(rejected.rendered,),
            margin=chosen.q - rejected.q,
            chosen_q=chosen.q,
            rejected_q=rejected.q,
            prefix_id=node.id,
            chosen_id=chosen.id,
            rejected_id=rejected.id,
        )
        for chosen, rejected in sides
    ]


def trajectory_pairs(tree: Tree, *, per_side: int = PER_SIDE) -> list[Pair]:
    """The final step's pairs: the best correct trajectories against the worst wrong ones, prefixes differing."""
    found = trajectories(tree)
    positives = sorted((one for one in found if one.correct), key=best_first)[:per_side]
    negatives = sorted((one for one in found if not one.correct), key=_worst_first)[:per_side]
    return [
        Pair(
            PairKind.TRAJECTORY,
            prefix=(),
            chosen=chosen.steps,
            rejected=rejected.steps,
            margin=chosen.mean_q - rejected.mean_q,
            chosen_q=chosen.mean_q,
            rejected_q=rejected.mean_q,
            prefix_id=tree.root.id,
            chosen_id=chosen.found,
            rejected_id=rejected.found,
        )
        for chosen in positives
        for rejected in negatives
    ]


def _worst_first(trajectory: Trajectory) -> tuple[float, int]:
    return trajectory.mean_q, trajectory.found


def is_clear(margin: float, distance: int, *, min_margin: float = 0.5, min_edit_distance: int = 20) -> bool:
    """Whether a pair is to be trained on: Q-values and texts clearly apart; the defaults are the reference's."""
    return margin >= min_margin and distance >= min_edit_distance
