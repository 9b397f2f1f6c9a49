"""One round of self-evolution: synthesis, search, Q-values, pairs, SFT, PPM, evaluation (Section 3.4)."""

from __future__ import annotations

from prefect import flow, runtime
from prefect.deployments import run_deployment

from flows import plans
from flows.recipe import Recipe
from flows.run_recipe import read_recipe
from flows.shard import search_shard
from rstar.protocols import InfrastructureError
from store.layout import Run
from tasks.evaluation import evaluate
from tasks.heldout_pairs import make_heldout_pairs
from tasks.lib.concurrency import map_concurrently
from tasks.ppm import train_ppm
from tasks.preference_pairs import extract_preference_pairs
from tasks.q_values import aggregate_q_values
from tasks.round_table import show_round
from tasks.search_costs import read_shard_counts, sum_search_costs
from tasks.sft import train_policy
from tasks.synthesis import synthesise


@flow(name="evolution-round", flow_run_name="round-{round}", persist_result=True)
async def evolution_round(root: str, round: int) -> dict[str, int]:
    """Search with the models of the round before, and train and evaluate this round's models; return the counts."""
    recipe = read_recipe(root)
    section, seed = plans.round_section(recipe, round), plans.round_seed(recipe, round)

    if round > 1 and recipe.synthesis.num_problems:
        await synthesise(
            root, round, **recipe.synthesis.model_dump(exclude={"temperature"}), max_depth=recipe.search.max_depth,
            models=plans.synthesis_models(recipe, root, round), sandbox=plans.sandbox(recipe),
            seed=plans.synthesis_seed(recipe, round), recipe=recipe.hash,
        )  # fmt: skip

    shard_counts = await map_concurrently(
        lambda shard: dispatch_shard(recipe, root, round, shard), range(recipe.run.shards), limit=recipe.run.workers
    )
    search_counts = sum_search_costs(root, round, shard_counts, recipe.hash)

    trajectory_counts = await aggregate_q_values(
        root, round, domain=recipe.domain, num_per_problem=recipe.sft.num_per_problem,
        min_correct_synthetic=recipe.sft.min_correct_synthetic, seed=seed, recipe=recipe.hash,
    )  # fmt: skip
    pair_counts = await extract_preference_pairs(
        root, round, domain=recipe.domain, num_per_side=recipe.ppm.num_per_side, recipe=recipe.hash
    )

    common = {"device": plans.device(recipe), "domain": recipe.domain}
    if section.train_policy:
        await train_policy(
            root, round, base=plans.base_model(recipe),
            rounds=plans.training_rounds(round, accumulate=recipe.sft.accumulate), num_averaged=recipe.sft.num_averaged,
            hyperparameters=recipe.sft.hyperparameters() | common, seed=seed, recipe=recipe.hash,
        )  # fmt: skip
    if section.train_ppm:
        await train_ppm(
            root, round, rounds=plans.training_rounds(round, accumulate=recipe.ppm.accumulate),
            min_margin=recipe.ppm.min_margin, min_edit_distance=recipe.ppm.min_edit_distance,
            hyperparameters=recipe.ppm.hyperparameters() | common, seed=seed, recipe=recipe.hash,
        )  # fmt: skip

    trained, sandbox = plans.trained_models(recipe, root, round), plans.sandbox(recipe)
    if plans.makes_heldout_pairs(recipe, round):
        await make_heldout_pairs(
            root, round, num_problems=recipe.evaluation.pair_problems, settings=plans.pair_settings(recipe),
            models=trained, sandbox=sandbox, seed=recipe.run.seed, recipe=recipe.hash,
        )  # fmt: skip
    await evaluate(
        root, round, models=trained, sandbox=sandbox, settings=plans.evaluation_settings(recipe, round),
        recipe=recipe.hash,
    )  # fmt: skip
    await show_round(root, round)
    return search_counts | trajectory_counts | pair_counts


async def dispatch_shard(recipe: Recipe, root: str, round: int, shard: int) -> dict[str, float]:
    """Search a shard, as a subflow in this process or as a run of its deployment on any worker; return its counts."""
    if recipe.run.dispatch == "subflow":
        return await search_shard(root, round, shard)
    run = await run_deployment(
        "search-shard/search-shard",
        parameters={"root": root, "round": round, "shard": shard},
        idempotency_key=f"{runtime.flow_run.id}-{shard}",
    )
    if not run.state or not run.state.is_completed():
        raise InfrastructureError(f"shard {shard} of round {round} failed: retry its flow run {run.name}")
    return read_shard_counts(Run(root), round, shard)
