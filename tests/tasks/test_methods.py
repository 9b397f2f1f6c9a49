"""More methods of the evaluation are measured if the recipe names them, on the same problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from domains.protocol import Domain
from flows import plans
from flows.recipe import check_recipe, load_recipe
from miniature.problems import generate
from rstar.annotation import Annotation
from rstar.protocols import UserError
from rstar.search import SearchSettings
from tasks.evaluation import EvaluationSettings, evaluate_problems
from tasks.lib import engines
from tasks.lib.engines import RULES, Models, SandboxSettings

PROBLEMS = [generated.problem for generated in generate({"gsm": 3}, seed=5, split="test")]


class FlatScorer:
    """Scores all steps alike."""

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> list[float]:
        return [0.25] * len(candidates)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    @asynccontextmanager
    async def flat(models: Models, domain: Domain) -> AsyncIterator[FlatScorer | None]:
        yield FlatScorer() if models.ppm else None

    monkeypatch.setattr(engines, "open_scorer", flat)
    return Models(RULES, ppm="flat")


async def test_best_of_n_and_beam_add_rows_and_do_not_change_those_of_the_search(models: Models) -> None:
    search = SearchSettings(num_rollouts=3, num_candidates=4, annotation=Annotation.INFERENCE)
    rows = {}
    for methods in ((), ("best_of_n", "beam")):
        settings = EvaluationSettings(search, seed=1, methods=methods, beam_width=2)
        rows[methods] = await evaluate_problems(
            PROBLEMS, 1, models=models, sandbox=SandboxSettings("local"), settings=settings
        )
    more = [row for row in rows["best_of_n", "beam"] if row["metric"] in ("best_of_n", "beam")]
    without_time = [[{**row, "seconds": 0} for row in part] for part in (rows[()], rows["best_of_n", "beam"])]
    assert [row for row in without_time[1] if row["metric"] not in ("best_of_n", "beam")] == without_time[0]
    assert Counter((row["metric"], row["num_trajectories"]) for row in more) == {("best_of_n", 3): 3, ("beam", 2): 3}
    assert all(row["score"] == 0.25 for row in more if row["answer"] is not None)
    assert any(row["correct"] for row in more)
    assert all(row["num_tokens"] > 0 for row in more)


def test_a_recipe_names_methods_and_rollouts_in_flight() -> None:
    plain = load_recipe("smoke")
    assert plans.evaluation_settings(plain).methods == ()
    assert plans.search_plan(plain, 1).settings.rollouts_in_flight == 1
    overrides = ['evaluation.methods=["beam"]', "evaluation.beam_width=3", "search.rollouts_in_flight=4"]
    recipe = load_recipe("smoke", [*overrides, "search.max_tokens_in_flight=5000"])
    settings = plans.evaluation_settings(recipe)
    assert (settings.methods, settings.beam_width, settings.search.rollouts_in_flight) == (("beam",), 3, 4)
    assert plans.search_plan(recipe, 1).max_tokens_in_flight == 5000
    with pytest.raises(UserError, match=r"evaluation.methods"):
        check_recipe(plain.model_dump() | {"evaluation": {"methods": ["luck"]}}, name="x")
