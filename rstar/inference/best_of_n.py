"""Trajectories sampled from the policy alone, and best-of-N by the PPM.

Section 4.1 (pass@1, Best-of-N) and Table 5. A sampled trajectory is a rollout with one candidate for each step; a step
is run before the next one is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rstar.inference.thinking import ScoredTrajectory
from rstar.protocols import Executor, Judge, Policy, Problem, StepFormat, StepScorer
from rstar.search import SearchSettings, search


@dataclass(frozen=True, slots=True)
class Sample:
    """A sampled trajectory, which may have ended without an answer."""

    answer: str | None
    correct: bool  # False if there is no answer or it could not be judged
    num_tokens: int
    steps: tuple[str, ...] = ()  # rendered, up to the last valid one


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
    """Sample one trajectory. Another seed gives another trajectory."""
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


async def score_samples(question: str, samples: Sequence[Sample], scorer: StepScorer) -> list[ScoredTrajectory]:
    """Score the last step of each sample that has an answer. Best-of-N is the `best_scored` of the result."""
    trajectories = []
    for sample in samples:
        if sample.answer is not None:
            (score,) = await scorer.score(question, sample.steps[:-1], sample.steps[-1:])
            trajectories.append(ScoredTrajectory(sample.answer, score, sample.steps, sample.num_tokens))
    return trajectories
