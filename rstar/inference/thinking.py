"""Deep thinking: search with the PPM and choose an answer from the trajectories, without the ground truth.

Section 4.1, "Inference". The answer is that of the trajectory with the best PPM score. Two majority votes over the same
trajectories are reported with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rstar.annotation import Annotation
from rstar.equivalence import Equivalence
from rstar.protocols import Executor, Judge, Policy, Problem, StepFormat, StepScorer
from rstar.search import SearchSettings, search
from rstar.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class ScoredTrajectory:
    """The answer of a trajectory and the PPM's score of its last step."""

    answer: str
    score: float
    steps: tuple[str, ...] = ()  # rendered
    num_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The answers that three rules choose from the same trajectories; None if there are no trajectories."""

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
) -> tuple[Conclusion, list[ScoredTrajectory], Tree]:
    """Search and choose answers. `problem.answer` is never read, and no node is marked correct or wrong."""
    tree = await search(
        problem,
        steps=steps,
        policy=policy,
        executor=executor,
        judge=judge,
        scorer=scorer,
        settings=replace(settings, annotation=Annotation.INFERENCE),
        seed=seed,
    )
    trajectories = scored_trajectories(tree)
    return await conclude(trajectories, judge=judge, top_k=top_k), trajectories, tree


def scored_trajectories(tree: Tree) -> list[ScoredTrajectory]:
    """Return the trajectories in the order in which they were found, so that `[:k]` are those of a shorter search."""
    terminals = [node for node in tree.walk() if node.terminal]
    return [scored_trajectory(node) for node in sorted(terminals, key=lambda node: node.id)]


def scored_trajectory(terminal: Node) -> ScoredTrajectory:
    """Return the trajectory that ends at a terminal."""
    num_tokens = sum(node.num_tokens for node in terminal.path())
    return ScoredTrajectory(terminal.answer or "", terminal.ppm_score or 0.0, tuple(terminal.prefix()), num_tokens)


def best_scored(trajectories: Sequence[ScoredTrajectory]) -> ScoredTrajectory | None:
    """Return the trajectory with the best score, of equal ones the first; None if there are none."""
    return max(trajectories, key=lambda trajectory: trajectory.score, default=None)


async def conclude(trajectories: Sequence[ScoredTrajectory], *, judge: Judge, top_k: int | None = None) -> Conclusion:
    """Choose answers by best score, by majority, and by majority weighted by score.

    The weighted majority counts the `top_k` trajectories with the best scores, or all if that is None.
    """
    labels = await Equivalence(judge).classes([trajectory.answer for trajectory in trajectories])
    ranked = sorted(range(len(trajectories)), key=lambda index: -trajectories[index].score)
    # Scores lie in [-1, 1]. Shifted to [0, 1], a low score is a weak vote for its answer and never one against it.
    weights = {index: (1.0 + trajectories[index].score) / 2.0 for index in ranked[:top_k]}
    best = best_scored(trajectories)
    return Conclusion(
        best=best.answer if best else None,
        majority=_vote(trajectories, labels, dict.fromkeys(range(len(trajectories)), 1.0)),
        weighted_majority=_vote(trajectories, labels, weights),
    )


def _vote(trajectories: Sequence[ScoredTrajectory], labels: Sequence[int], weights: dict[int, float]) -> str | None:
    """Return the answer with the largest total weight; of equal ones the best scored, then the one found first."""
    totals: dict[int, float] = {}
    best_scores: dict[int, float] = {}
    for index in sorted(weights):
        label, score = labels[index], trajectories[index].score
        totals[label] = totals.get(label, 0.0) + weights[index]
        best_scores[label] = max(best_scores.get(label, score), score)
    winner = max(totals, key=lambda label: (totals[label], best_scores[label], -label), default=None)
    return None if winner is None else trajectories[winner].answer
