"""One shard of a round: the unit of work and of retry.

A round calls it as a subflow or through its own deployment, so that Prefect's UI can retry one shard alone.
"""

from __future__ import annotations

from prefect import flow

from flows import plans
from flows.run_recipe import read_recipe
from tasks.rollouts import search_problems


@flow(name="search-shard", flow_run_name="round-{round}-shard-{shard}", persist_result=True, validate_parameters=False)
async def search_shard(root: str, round: int, shard: int) -> dict[str, float]:
    """Search the problems of one shard by the recipe of the run; return the shard's counts."""
    recipe = read_recipe(root)
    return await search_problems(
        root,
        round,
        shard,
        recipe.run.shards,
        recipe=recipe.hash,
        models=plans.search_models(recipe, root, round),
        sandbox=plans.sandbox(recipe),
        plan=plans.search_plan(recipe, round),
    )
