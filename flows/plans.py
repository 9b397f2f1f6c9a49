"""What a recipe means for the tasks of a round: which models, how hard a search, which training.

Tasks know no recipe: they are handed the values below.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from flows.recipe import IN_FLIGHT, EngineSection, Recipe, RoundSection, apply_override, check_recipe
from rstar.annotation import Annotation
from rstar.inference.solving import Budget
from rstar.protocols import UserError
from rstar.search import SearchSettings
from store import files
from store.layout import Run, check_format
from tasks.evaluation import Examination
from tasks.lib.engines import RULES, Engine, Models, Sandbox, find_checkpoint
from tasks.problems import ProblemSource
from tasks.rollouts import Effort


def keep_recipe(recipe: Recipe, root: str) -> None:
    """Write the recipe into the run's folder, or make sure that the one there is the same."""
    run = Run(root)
    if not files.exists(run.recipe):
        files.write_bytes(run.recipe, (recipe.model_dump_json(indent=1) + "\n").encode())
        return
    there = recipe_of(root)
    if there.hash != recipe.hash:
        raise UserError(
            f"{run.root} holds a run of another recipe ({difference(there, recipe)}); "
            "give another --out, or the recipe it was started with"
        )
    if there.run.shards != recipe.run.shards:
        raise UserError(f"{run.root} was cut into run.shards = {there.run.shards}, not {recipe.run.shards}; keep it so")
    if there.engine != recipe.engine:  # endpoints may have moved
        kept = there.model_copy(update={"engine": recipe.engine})
        files.write_bytes(run.recipe, (kept.model_dump_json(indent=1) + "\n").encode())


def recipe_of(root: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe of a run, with `key=value` overrides that are not kept."""
    run = Run(root)
    url = run.recipe
    if not files.exists(url):
        raise UserError(f"{root}: no run there (recipe.json is missing); start one with `rstar evolve`")
    try:
        content = json.loads(files.read_bytes(url))
    except ValueError:
        raise UserError(f"{url}: not JSON; restore it, or give another run") from None
    check_format(run)
    for override in overrides:
        apply_override(content, override)
    return check_recipe(content, name=f"{url} with --set {' '.join(overrides)}" if overrides else url)


def difference(one: Recipe, other: Recipe) -> str:
    """Name the first key in which two recipes differ."""
    left, right = (flat(recipe.model_dump(mode="json")) for recipe in (one, other))
    keys = [key for key in left | right if left.get(key) != right.get(key) and key not in PLACEMENT]
    return (
        f"{keys[0]} is {left.get(keys[0])!r} there and {right.get(keys[0])!r} here" if keys else "its keys are the same"
    )


PLACEMENT = (
    *("run.name", "run.shards", "run.workers", "run.dispatch"),
    *(f"search.{key}" for key in IN_FLIGHT),
    *(f"engine.{key}" for key in EngineSection.model_fields if key != "kind"),
)


def flat(value: object, prefix: str = "") -> dict[str, object]:
    """Flatten nested sections to dotted keys, rounds counted from 1."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = [(str(number), item) for number, item in enumerate(value, start=1)]
    else:
        return {prefix: value}
    nested = [flat(item, f"{prefix}.{key}" if prefix else key) for key, item in items]
    return {key: item for part in nested for key, item in part.items()}


def section(recipe: Recipe, round: int) -> RoundSection:
    return recipe.rounds[round - 1]


def problem_source(recipe: Recipe, split: str) -> ProblemSource:
    problems = recipe.problems
    if split == "train":
        return ProblemSource(problems.train, problems.train_file, problems.level, problems.max_train, recipe.domain)
    return ProblemSource(problems.test, problems.test_file, problems.level, problems.max_test, recipe.domain)


def search_models(recipe: Recipe, root: str, round: int) -> Models:
    """Name the models that a round searches with: mostly those of the round before."""
    spec, run = section(recipe, round), Run(root)
    policies = {
        "bootstrap": recipe.model.bootstrap,
        "base": recipe.model.base,
        "previous": run.models(round - 1, "policy"),
    }
    ppm = run.models(round - 1, "ppm") if spec.scorer == "previous" else None
    few_shot = spec.policy == "bootstrap" and recipe.model.bootstrap_prompt == "few_shot"
    found = models(recipe, policies[spec.policy], ppm, spec.temperature, root)
    if spec.policy == "bootstrap":
        found = replace(found, engine=replace(found.engine, urls=tuple(recipe.engine.bootstrap_urls)))
    return replace(found, few_shot=few_shot)


def trained_models(recipe: Recipe, root: str, round: int) -> Models:
    """Name the models that a round leaves: those it trained, or the one it searched with; round 0 is the base."""
    run = Run(root)
    if round == 0:
        return models(recipe, recipe.model.base, None, recipe.evaluation.temperature, root)
    if not section(recipe, round).train_policy:
        return search_models(recipe, root, round).without_ppm()
    ppm = run.models(round, "ppm") if section(recipe, round).train_ppm else None
    return models(recipe, run.models(round, "policy"), ppm, recipe.evaluation.temperature, root)


def models(recipe: Recipe, policy: str, ppm: str | None, temperature: float, root: str = "") -> Models:
    return Models(
        policy=policy if policy == RULES else find_checkpoint(policy),
        ppm=ppm,
        temperature=temperature,
        max_new_tokens=recipe.model.max_new_tokens,
        max_context=recipe.model.max_context,
        max_batch=recipe.model.max_batch,
        device=device(recipe),
        seed=recipe.run.seed,
        domain=recipe.domain,
        engine=engine(recipe, root),
    )


def engine(recipe: Recipe, root: str) -> Engine:
    """Say what answers for the models; servers write their logs into the run's folder where that is on this disk."""
    spec = recipe.engine.model_dump(exclude={"bootstrap_urls", "policy_urls", "ppm_urls"})
    log_dir = Run(root).path("logs") if root and not files.is_remote(root) else ""
    return Engine(
        urls=tuple(recipe.engine.policy_urls), ppm_urls=tuple(recipe.engine.ppm_urls), log_dir=log_dir, **spec
    )


def device(recipe: Recipe) -> str:
    """Name the device of engines and training; empty: a GPU where there is one."""
    return "" if recipe.model.device == "auto" else recipe.model.device


def base_model(recipe: Recipe) -> str:
    return find_checkpoint(recipe.model.base)


def sandbox(recipe: Recipe) -> Sandbox:
    return Sandbox(**recipe.sandbox.model_dump())


def settings(recipe: Recipe, num_rollouts: int, num_candidates: int, annotation: Annotation) -> SearchSettings:
    return SearchSettings(
        num_rollouts=num_rollouts,
        num_candidates=num_candidates,
        max_depth=recipe.search.max_depth,
        exploration=recipe.search.exploration,
        annotation=annotation,
        rollouts_in_flight=recipe.search.rollouts_in_flight,
    )


def effort(recipe: Recipe, round: int) -> Effort:
    spec = section(recipe, round)
    return Effort(
        settings=settings(recipe, spec.num_rollouts, spec.num_candidates, Annotation(spec.annotation)),
        seed=round_seed(recipe, round),
        more_rollouts=tuple(count for count in (spec.hard_rollouts, *spec.unsolved_rollouts) if count),
        extra_trees=spec.extra_trees,
        max_in_flight=recipe.search.max_in_flight,
        max_tokens_in_flight=recipe.search.max_tokens_in_flight,
    )


def examination(recipe: Recipe, round: int | None = None) -> Examination:
    """The same examination, seed included, in every round; before the last the whole system may be asked less."""
    spec = recipe.evaluation
    return Examination(
        settings=settings(recipe, spec.num_rollouts, spec.num_candidates, Annotation.INFERENCE),
        seed=recipe.run.seed,
        top_k=spec.top_k,
        majority=spec.majority,
        methods=tuple(spec.methods),
        beam_width=spec.beam_width,
        num_system=None if round in (None, len(recipe.rounds)) else spec.system_problems,
        heldout_pairs=spec.pair_problems > 0,
        max_in_flight=recipe.search.max_in_flight,
    )


def budget(recipe: Recipe) -> Budget:
    """Think as long as the evaluation does, where nobody says otherwise."""
    return Budget(trajectories=recipe.evaluation.num_rollouts)


def pair_settings(recipe: Recipe) -> SearchSettings:
    spec = recipe.evaluation
    return settings(recipe, spec.pair_rollouts, spec.pair_candidates, Annotation.TERMINAL)


def makes_heldout_pairs(recipe: Recipe, round: int) -> bool:
    """Whether the round's policy is the first that is trained: all PPMs are measured on its mistakes."""
    trained = [spec.train_policy for spec in recipe.rounds[:round]]
    return recipe.evaluation.pair_problems > 0 and trained[-1] and not any(trained[:-1])


def round_seed(recipe: Recipe, round: int) -> int:
    return recipe.run.seed * 1000 + round


def synthesis_seed(recipe: Recipe, round: int) -> int:
    """Keep apart from the search's seed, so that a label is not confirmed by the very samples it came from."""
    return round_seed(recipe, round) + 500


def training_rounds(round: int, *, accumulate: bool) -> list[int]:
    return list(range(1, round + 1)) if accumulate else [round]


def last_pair(root: str, overrides: Sequence[str] = ()) -> tuple[Recipe, Models]:
    """Name the models of the last round that trained any, asked as the run's recipe says with `overrides`."""
    recipe = recipe_of(root, overrides)
    return recipe, trained_models(recipe, root, last_round(recipe, root))


def thinking_pair(root: str, overrides: Sequence[str] = ()) -> tuple[Recipe, Models]:
    """Name a run's last models, where they are a policy and a PPM."""
    recipe, models = last_pair(root, overrides)
    if models.ppm is None:
        raise UserError(f"{root}: its last round has no PPM, which deep thinking needs")
    return recipe, models


def last_round(recipe: Recipe, root: str) -> int:
    """Find the last round whose models are trained."""
    run = Run(root)
    for round in range(len(recipe.rounds), 0, -1):
        spec = section(recipe, round)
        kinds = ("policy",) * spec.train_policy + ("ppm",) * spec.train_ppm
        if kinds and all(files.exists(f"{run.models(round, kind)}/manifest.json") for kind in kinds):
            return round
    raise UserError(f"{root}: no round of it has trained models yet; resume it with `rstar evolve`")
