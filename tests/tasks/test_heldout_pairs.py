"""Held-out pairs of generated problems are pairs of a right and a wrong step."""

from __future__ import annotations

from domains.mathematics.steps import parse_response
from miniature.problems import generate
from rstar.search import SearchSettings
from tasks.heldout_pairs import pair_rows
from tasks.lib.engines import Engines
from tasks.lib.truth import wrong_of
from tasks.rollouts import SearchPlan, search_problem


async def test_a_held_out_pair_is_a_right_step_against_a_wrong_one_after_right_steps(engines: Engines) -> None:
    plan = SearchPlan(SearchSettings(num_rollouts=12, num_candidates=8), seed=1)
    num_pairs = 0
    for generated in generate({"gsm": 2, "math": 4}, seed=5, split="test"):
        (tree,) = await search_problem(generated.problem, engines, plan)
        for row in pair_rows(tree, generated.truth):
            prefix = parse_response(row["prefix"]) if row["prefix"] else []
            right, wrong = (wrong_of(generated.truth, [*prefix, row[side]]) for side in ("chosen", "rejected"))
            assert right is not None and not any(right)
            assert wrong is not None and wrong[-1] and not any(wrong[:-1])
            num_pairs += 1
    assert num_pairs > 5
