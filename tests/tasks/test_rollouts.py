"""The search of a problem and the order of a shard's searches."""

from __future__ import annotations

from miniature.problems import generate
from rstar.protocols import Problem
from rstar.search import SearchSettings
from tasks.lib.engines import Engines
from tasks.rollouts import SearchPlan, longest_first, search_problem


async def test_an_unsolved_problem_gets_more_rollouts_and_then_trees_with_other_seeds(engines: Engines) -> None:
    settings = SearchSettings(num_rollouts=1, num_candidates=1, max_depth=1)  # too shallow for any answer
    problem = generate({"gsm": 1}, seed=5, split="test")[0].problem
    trees = await search_problem(problem, engines, SearchPlan(settings, seed=1, more_rollouts=(2, 3), extra_trees=2))
    assert len(trees) == 3
    assert len({tree.seed for tree in trees}) == 3
    plan = SearchPlan(SearchSettings(8, 5), seed=1, more_rollouts=(64,), extra_trees=2)
    (solved,) = await search_problem(problem, engines, plan)
    assert solved.num_rollouts <= 8


def test_problems_with_long_questions_are_searched_first() -> None:
    problems = [Problem(id, question, "") for id, question in (("a", "Why?"), ("b", "Why is it so?"), ("c", "How?"))]
    assert [problem.id for problem in longest_first(problems)] == ["b", "a", "c"]
