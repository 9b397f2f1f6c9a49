"""The self-evolution of rStar-Math on one page: problems, then round after round (Section 3.4.2).

problems -> rounds of [synthesis -> search -> Q-values -> pairs -> SFT -> PPM -> evaluation] -> report
"""

from __future__ import annotations

from prefect import flow

from flows import plans
from flows.recipe import Recipe
from flows.round import evolution_round
from store.lock import alone_in
from tasks.evaluation import evaluate
from tasks.problems import prepare_problems
from tasks.report import write_report


@flow(name="evolution", flow_run_name="{recipe.run.name}", persist_result=True)
async def evolution(recipe: Recipe, root: str) -> str:
    """Evolve policy and PPM by the recipe, in the folder `root`; return the report's place.

    What is there already is not done again, so that the same call resumes a run that was broken off.
    """
    with alone_in(root):
        plans.keep_recipe(recipe, root)
        for split in ("train", "test"):
            await prepare_problems(root, split, plans.problem_source(recipe, split), recipe.run.seed)
        if recipe.evaluation.base:
            await evaluate(
                root, 0, models=plans.trained_models(recipe, root, 0), sandbox=plans.sandbox(recipe),
                exam=plans.examination(recipe, 0), recipe=recipe.hash,
            )  # fmt: skip
        for round in range(1, len(recipe.rounds) + 1):
            await evolution_round(root, round)
        return await write_report(root)
