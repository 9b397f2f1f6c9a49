"""Preference pairs for the PPM: two steps, or two whole trajectories, of which the Q-values prefer one.

Section 3.3, "Process preference model".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rstar.trajectories import sft_choice, trajectories
from rstar.tree import Node, Tree

NUM_PER_SIDE = 2  # positives and negatives of a group (Section 3.3)


class PairKind(StrEnum):
    """What a pair compares."""

    STEP = "step"
    TRAJECTORY = "trajectory"


@dataclass(frozen=True, slots=True)
class Pair:
    """A chosen and a rejected continuation of one prefix. The prefix of a trajectory pair is the question alone.

    Pairs with the same kind and prefix are one group of the loss.
    """

    kind: PairKind
    prefix: tuple[str, ...]  # rendered steps
    chosen: tuple[str, ...]  # rendered steps after the prefix: one step, or a whole trajectory
    rejected: tuple[str, ...]
    margin: float  # chosen_q - rejected_q
    chosen_q: float  # mean Q for a trajectory
    rejected_q: float
    prefix_id: int  # the node at the end of the prefix
    chosen_id: int  # the node of the chosen step, or the terminal of the chosen trajectory
    rejected_id: int


def extract_pairs(tree: Tree, *, num_per_side: int = NUM_PER_SIDE) -> list[Pair]:
    """Return all pairs of a tree, unfiltered. A tree without a correct answer or without a failure gives none."""
    return [*step_pairs(tree, num_per_side=num_per_side), *trajectory_pairs(tree, num_per_side=num_per_side)]


def step_pairs(tree: Tree, *, num_per_side: int = NUM_PER_SIDE) -> list[Pair]:
    """Return the pairs of intermediate steps, for each node among its non-terminal children.

    Positives are those with the highest Q that lead to a correct answer. Negatives are those with the lowest Q, of the
    others, that lead to a failure: a wrong answer or a dead end. A pair has a positive margin.
    """
    successful, failed = _evidence(tree)
    return [pair for node in tree.walk() for pair in _step_group(node, successful, failed, num_per_side)]


def _evidence(tree: Tree) -> tuple[set[int], set[int]]:
    """Return the ids of the nodes at or below which there is a correct answer, and a failure."""
    successful: set[int] = set()
    failed: set[int] = set()
    for node in reversed(list(tree.walk())):
        if node.correct is True or any(child.id in successful for child in node.children):
            successful.add(node.id)
        if node.correct is False or node.dead_end or any(child.id in failed for child in node.children):
            failed.add(node.id)
    return successful, failed


def _step_group(node: Node, successful: set[int], failed: set[int], num_per_side: int) -> list[Pair]:
    steps = [child for child in node.children if not child.terminal]
    positives = sorted((step for step in steps if step.id in successful), key=lambda step: -step.q)[:num_per_side]
    others = [step for step in steps if step.id in failed and step not in positives]
    negatives = sorted(others, key=lambda step: step.q)[:num_per_side]
    combinations = [(chosen, rejected) for chosen in positives for rejected in negatives if chosen.q > rejected.q]
    if not combinations:
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
        for chosen, rejected in combinations
    ]


def trajectory_pairs(tree: Tree, *, num_per_side: int = NUM_PER_SIDE) -> list[Pair]:
    """Return the pairs for the final step: whole trajectories, whose earlier steps may differ.

    The correct trajectories with the highest mean Q are compared with the wrong ones with the lowest mean Q.
    """
    candidates = trajectories(tree)
    positives = sft_choice(candidates, num_chosen=num_per_side)
    wrong = (trajectory for trajectory in candidates if not trajectory.correct)
    negatives = sorted(wrong, key=lambda trajectory: (trajectory.mean_q, trajectory.terminal_id))[:num_per_side]
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
            chosen_id=chosen.terminal_id,
            rejected_id=rejected.terminal_id,
        )
        for chosen in positives
        for rejected in negatives
    ]


def is_clear(margin: float, distance: int, *, min_margin: float = 0.5, min_edit_distance: int = 20) -> bool:
    """Return whether a pair is trained on: its Q-values and its texts differ enough.

    Not in the paper; the defaults are those of the reference code.
    """
    return margin >= min_margin and distance >= min_edit_distance
