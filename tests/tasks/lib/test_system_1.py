"""Sampling from the policy alone: token budgets, and samples that do not depend on each other."""

from __future__ import annotations

from miniature.problems import generate
from tasks.lib.engines import Engines
from tasks.lib.system_1 import sample_many, sample_tokens

PROBLEM = generate({"gsm": 1}, seed=5, split="test")[0].problem


async def test_sampling_stops_at_the_first_sample_that_reaches_the_budget(engines: Engines) -> None:
    for budget in (1, 50, 400):
        samples = await sample_tokens(PROBLEM, engines, budget, max_depth=16, seed=1)
        tokens = [each.num_tokens for each in samples]
        assert sum(tokens) >= budget > sum(tokens[:-1])


async def test_a_sample_depends_on_its_number_and_not_on_how_many_are_drawn(engines: Engines) -> None:
    few = await sample_many(PROBLEM, engines, 3, max_depth=16, seed=1)
    many = await sample_many(PROBLEM, engines, 6, max_depth=16, seed=1)
    assert many[:3] == few
