"""Whole trajectories by the policy alone: one, or the best of N by the PPM.

Section 4.1 (pass@1, Best-of-N) and Table 5. A trajectory is a rollout with one candidate a step; each step is run
before the next is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rstar.inference.thinking import ScoredTrajectory
from rstar.protocols import Executor, Judge, Policy, Problem, StepFormat, StepScorer
from rstar.search import SearchSettings, search


@dataclass(frozen=True, slots=True)
class Sample:
    """One trajectory's answer, None where it broke off; `correct` is False where the truth is not known."""

    answer: str | None
    correct: bool
    num_tokens: int
    steps: tuple[str, ...] = ()  # rendered, up to the answer or to where it broke off


async def sample(
    problem: Problem,
    *,
    steps: StepFormat,
    policy: Policy,
    executor: Executor,
    judge: Judge,
    max_depth: int,
    seed: int,
) -> Sample:
    """Write one trajectory; another seed, another trajectory."""
    tree = await search(
        problem,
        steps=steps,
        policy=policy,
        executor=executor,
        judge=judge,
        settings=SearchSettings(num_rollouts=1, num_candidates=1, max_depth=max_depth),
        seed=seed,
    )
    last = next(node for node in reversed(tree.nodes) if node.valid)
    return Sample(last.answer, bool(last.correct), tree.num_tokens, tuple(last.prefix()))


async def scored(question: str, samples: Sequence[Sample], scorer: StepScorer) -> list[ScoredTrajectory]:
    """The samples that have an answer, each with the PPM's score of its last step: Best-of-N is `conclude(…).best`."""
    trajectories = []
    for one in samples:
        if one.answer is not None:
            (score,) = await scorer.score(question, one.steps[:-1], one.steps[-1:])
            trajectories.append(ScoredTrajectory(one.answer, score, one.steps, num_tokens=one.num_tokens))
    return trajectories
