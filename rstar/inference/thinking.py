"""Deep thinking: the answer out of many trajectories, with no ground truth in sight.

Section 4.1, "Inference": the answer of the trajectory that the PPM scores best; majority votes are reported beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rstar.annotation import Annotation
from rstar.equivalence import Equivalence
from rstar.protocols import Executor, Judge, Policy, Problem, StepFormat, StepScorer
from rstar.search import SearchSettings, search
from rstar.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class ScoredTrajectory:
    """One trajectory's answer and the PPM's score of it."""

    answer: str
    score: float
    steps: tuple[str, ...] = ()
    node_id: int = -1
    num_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The answers that three rules draw from the same trajectories; None where there is no trajectory."""

    best: str | None
    majority: str | None
    weighted_majority: str | None


async def think(
    problem: Problem,
    *,
    steps: StepFormat,
    policy: Policy,
    executor: Executor,
    scorer: StepScorer,
    judge: Judge,
    settings: SearchSettings,
    seed: int = 0,
    top_k: int | None = None,
    on_rollout: Callable[[Tree, Node], None] | None = None,
) -> tuple[Conclusion, list[ScoredTrajectory], Tree]:
    """Search at inference and conclude; `problem.answer` is never read, nodes' `correct` stays unknown."""
    settings = replace(settings, annotation=Annotation.INFERENCE)
    tree = await search(
        problem,
        steps=steps,
        policy=policy,
        executor=executor,
        judge=judge,
        scorer=scorer,
        settings=settings,
        seed=seed,
        on_rollout=on_rollout,
    )
    found = scored_trajectories(tree)
    return await conclude(found, judge=judge, top_k=top_k), found, tree


def scored_trajectories(tree: Tree) -> list[ScoredTrajectory]:
    """The tree's trajectories as trajectories, found first first, so that `[:k]` is what k trajectories would give."""
    terminals = [node for node in tree.walk() if node.terminal]
    return [scored_trajectory(node) for node in sorted(terminals, key=lambda node: node.id)]


def scored_trajectory(terminal: Node) -> ScoredTrajectory:
    """The trajectory that ends at a terminal."""
    num_tokens = sum(node.num_tokens for node in terminal.path())
    return ScoredTrajectory(
        terminal.answer or "", terminal.ppm_score or 0.0, tuple(terminal.prefix()), terminal.id, num_tokens
    )


async def conclude(found: Sequence[ScoredTrajectory], *, judge: Judge, top_k: int | None = None) -> Conclusion:
    """Best score, majority, and majority weighted by score over the `top_k` best (None: over all)."""
    labels = await Equivalence(judge).classes([trajectory.answer for trajectory in found])
    ranked = sorted(range(len(found)), key=lambda at: -found[at].score)
    # Scores lie in [-1, 1]: shifted, so that a poor trajectory's vote is weak but never against its answer.
    weights = {at: (1.0 + found[at].score) / 2.0 for at in ranked[:top_k]}
    return Conclusion(
        best=found[ranked[0]].answer if found else None,
        majority=_vote(found, labels, dict.fromkeys(range(len(found)), 1.0)),
        weighted_majority=_vote(found, labels, weights),
    )


def _vote(found: Sequence[ScoredTrajectory], labels: Sequence[int], weights: dict[int, float]) -> str | None:
    """The answer with the largest weight; of equals the one with the best score, then the one found first."""
    totals: dict[int, float] = {}
    best_scores: dict[int, float] = {}
    for at in sorted(weights):
        label, score = labels[at], found[at].score
        totals[label] = totals.get(label, 0.0) + weights[at]
        best_scores[label] = max(best_scores.get(label, score), score)
    winner = max(totals, key=lambda label: (totals[label], best_scores[label], -label), default=None)
    return None if winner is None else found[winner].answer


async def grade(tree: Tree, *, judge: Judge) -> None:
    """Say of each terminal whether it is correct: for evaluation, after the search is over."""
    equivalence = Equivalence(judge)
    for node in tree.walk():
        if node.answer is not None and node.correct is None:
            node.correct = await equivalence.correct(node.answer, tree.problem.answer)
