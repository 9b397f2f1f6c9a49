"""Sampling without search: token budgets, votes, and the searches and pairs that use the same engines."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from domains.mathematics.steps import parse_response
from miniature.problems import generate
from problems.synthesis import majority
from rstar.search import SearchSettings
from tasks.heldout_pairs import pair_rows
from tasks.lib.engines import RULES, Engines, Models, SandboxSettings, open_engines
from tasks.lib.system_1 import sample_many, sample_tokens
from tasks.lib.truth import wrong_of
from tasks.rollouts import SearchPlan, search_problem

GENERATED = generate({"gsm": 2, "math": 4}, seed=5, split="test")


@pytest.fixture
async def engines() -> AsyncIterator[Engines]:
    async with open_engines(Models(RULES), SandboxSettings()) as rule_based:
        yield rule_based


async def test_sampling_stops_at_the_first_sample_that_reaches_the_budget(engines: Engines) -> None:
    problem = GENERATED[0].problem
    for budget in (1, 50, 400):
        samples = await sample_tokens(problem, engines, budget, max_depth=16, seed=1)
        tokens = [each.num_tokens for each in samples]
        assert sum(tokens) >= budget > sum(tokens[:-1])


async def test_a_sample_depends_on_its_number_and_not_on_how_many_are_drawn(engines: Engines) -> None:
    problem = GENERATED[0].problem
    few = await sample_many(problem, engines, 3, max_depth=16, seed=1)
    many = await sample_many(problem, engines, 6, max_depth=16, seed=1)
    assert many[:3] == few


async def test_the_majority_counts_equivalent_answers_as_one(engines: Engines) -> None:
    assert await majority(["7", "1/2", None, "0.5", "7.0", "0.50"], engines.judge) == ("1/2", 3)
    assert await majority([None], engines.judge) == (None, 0)


async def test_a_held_out_pair_is_a_right_step_against_a_wrong_one_after_right_steps(engines: Engines) -> None:
    plan = SearchPlan(SearchSettings(num_rollouts=12, num_candidates=8), seed=1)
    num_pairs = 0
    for generated in GENERATED:
        (tree,) = await search_problem(generated.problem, engines, plan)
        for row in pair_rows(tree, generated.truth):
            prefix = parse_response(row["prefix"]) if row["prefix"] else []
            right, wrong = (wrong_of(generated.truth, [*prefix, row[side]]) for side in ("chosen", "rejected"))
            assert right is not None and not any(right)
            assert wrong is not None and wrong[-1] and not any(wrong[:-1])
            num_pairs += 1
    assert num_pairs > 5


async def test_an_unsolved_problem_gets_more_rollouts_and_then_trees_with_other_seeds(engines: Engines) -> None:
    settings = SearchSettings(num_rollouts=1, num_candidates=1, max_depth=1)  # too shallow for any answer
    problem = GENERATED[0].problem
    trees = await search_problem(problem, engines, SearchPlan(settings, seed=1, more_rollouts=(2, 3), extra_trees=2))
    assert len(trees) == 3
    assert len({tree.seed for tree in trees}) == 3
    solved = await search_problem(
        problem, engines, SearchPlan(SearchSettings(8, 5), seed=1, more_rollouts=(64,), extra_trees=2)
    )
    assert len(solved) == 1
    assert solved[0].num_rollouts <= 8
