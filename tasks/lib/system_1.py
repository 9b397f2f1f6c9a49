"""System 1: whole trajectories by the policy alone, one candidate a step and no search.

Section 4.1's pass@1, the samples that majority voting counts, and the ten solutions of a synthetic problem.
"""

from __future__ import annotations

import math

from rstar.inference import best_of_n as sampling
from rstar.inference.best_of_n import Sample
from rstar.protocols import Problem
from tasks.lib.concurrency import map_concurrently
from tasks.lib.engines import Engines
from tasks.lib.trees import tree_seed

FIRST_WAVE = 8  # samples drawn before their length is known
SPARE = 1.25  # so that a second wave mostly does; what lies past the budget is left out


async def sample(problem: Problem, engines: Engines, *, max_depth: int, seed: int) -> Sample:
    """Write one trajectory, step by step, each run before the next is written."""
    given = {name: engine for name, engine in engines.for_search().items() if name != "scorer"}
    return await sampling.sample(problem, **given, max_depth=max_depth, seed=seed)


async def sample_many(problem: Problem, engines: Engines, count: int, *, max_depth: int, seed: int) -> list[Sample]:
    return await _draw(problem, engines, range(count), max_depth, seed)


async def sample_tokens(problem: Problem, engines: Engines, budget: int, *, max_depth: int, seed: int) -> list[Sample]:
    """Draw samples until they hold `budget` tokens; the one that exceeds it counts."""
    samples: list[Sample] = []
    wave = FIRST_WAVE
    while True:
        numbers = range(len(samples), len(samples) + wave)
        samples += await _draw(problem, engines, numbers, max_depth, seed)
        spent, kept = 0, 0
        for one in samples:
            if spent >= budget:
                return samples[:kept]
            spent, kept = spent + max(1, one.num_tokens), kept + 1
        if spent >= budget:
            return samples
        wave = math.ceil(SPARE * (budget - spent) * kept / spent)


async def _draw(problem: Problem, engines: Engines, numbers: range, max_depth: int, seed: int) -> list[Sample]:
    async def one(number: int) -> Sample:
        return await sample(problem, engines, max_depth=max_depth, seed=tree_seed(seed, problem.id, number))

    return await map_concurrently(one, numbers, limit=len(numbers))
