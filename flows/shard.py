"""One shard of a round: the unit of work and of retry.

Called as a subflow, or through a deployment of its own, so that one shard can be retried alone from Prefect's UI.
"""

from __future__ import annotations

from prefect import flow

from flows import plans
from tasks.rollouts import search_problems


@flow(name="search-shard", flow_run_name="round-{round}-shard-{shard}", persist_result=True, validate_parameters=False)
async def search_shard(root: str, round: int, shard: int) -> dict[str, float]:
    """Search the problems of one shard; the recipe is the run's own."""
    recipe = plans.recipe_of(root)
    return await search_problems(
        root,
        round,
        shard,
        recipe.run.shards,
        recipe=recipe.hash,
        models=plans.search_models(recipe, root, round),
        sandbox=plans.sandbox(recipe),
        effort=plans.effort(recipe, round),
    )
