"""The self-evolution of rStar-Math on one page: problems, rounds, report (Section 3.4.2).

problems -> rounds of [synthesis -> search -> Q-values -> pairs -> SFT -> PPM -> evaluation] -> report
"""

from __future__ import annotations

from prefect import flow

from flows import plans
from flows.recipe import Recipe
from flows.round import evolution_round
from flows.run_recipe import store_recipe
from store.lock import alone_in
from tasks.evaluation import evaluate
from tasks.problems import prepare_problems
from tasks.report import write_report


@flow(name="evolution", flow_run_name="{recipe.run.name}", persist_result=True)
async def evolution(recipe: Recipe, root: str) -> str:
    """Evolve policy and PPM as the recipe says, in the folder `root`; return the place of the report.

    Finished work is not repeated, so the same call resumes an interrupted run.
    """
    with alone_in(root):
        store_recipe(recipe, root)
        for split in ("train", "test"):
            await prepare_problems(root, split, plans.problem_source(recipe, split), recipe.run.seed)
        if recipe.evaluation.base:
            await evaluate(
                root, 0, models=plans.trained_models(recipe, root, 0), sandbox=plans.sandbox(recipe),
                settings=plans.evaluation_settings(recipe, 0), recipe=recipe.hash,
            )  # fmt: skip
        for round in range(1, len(recipe.rounds) + 1):
            await evolution_round(root, round)
        return await write_report(root)
