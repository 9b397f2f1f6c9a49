"""System 1: whole trajectories by the policy alone, with one candidate for each step and no search.

These are the trajectories of pass@1 (Section 4.1), of majority voting, of best-of-N, and of the solutions of a
synthetic problem.
"""

from __future__ import annotations

import math

from rstar.inference import best_of_n
from rstar.inference.best_of_n import Sample
from rstar.protocols import Problem
from tasks.lib.concurrency import map_concurrently
from tasks.lib.engines import Engines
from tasks.lib.trees import tree_seed

FIRST_BATCH = 8  # samples drawn before their mean length is known
MARGIN = 1.25  # drawn beyond the estimate, so that a second batch is mostly enough; the excess is dropped


async def sample(problem: Problem, engines: Engines, *, max_depth: int, seed: int) -> Sample:
    """Sample one trajectory. A step is run before the next one is sampled."""
    arguments = engines.for_search()
    del arguments["scorer"]
    return await best_of_n.sample(problem, **arguments, max_depth=max_depth, seed=seed)


async def sample_many(
    problem: Problem, engines: Engines, num_samples: int, *, max_depth: int, seed: int
) -> list[Sample]:
    """Sample `num_samples` trajectories. Sample i is the same however many are drawn."""
    return await _draw(problem, engines, range(num_samples), max_depth, seed)


async def sample_tokens(problem: Problem, engines: Engines, budget: int, *, max_depth: int, seed: int) -> list[Sample]:
    """Sample trajectories until they have `budget` tokens. The last one is the one that reaches the budget."""
    samples: list[Sample] = []
    num_to_draw = FIRST_BATCH
    while True:
        numbers = range(len(samples), len(samples) + num_to_draw)
        samples += await _draw(problem, engines, numbers, max_depth, seed)
        num_tokens = 0
        for number, each in enumerate(samples):
            if num_tokens >= budget:
                return samples[:number]
            num_tokens += max(1, each.num_tokens)
        if num_tokens >= budget:
            return samples
        num_to_draw = math.ceil(MARGIN * (budget - num_tokens) * len(samples) / num_tokens)


async def _draw(problem: Problem, engines: Engines, numbers: range, max_depth: int, seed: int) -> list[Sample]:
    async def draw(number: int) -> Sample:
        return await sample(problem, engines, max_depth=max_depth, seed=tree_seed(seed, problem.id, number))

    return await map_concurrently(draw, numbers, limit=len(numbers))
