"""The arguments of tasks, from the recipe of a run: which models, which searches, which training data.

Tasks do not know the recipe. They get the values that these functions return.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flows.recipe import Recipe
from flows.recipe_sections import RoundSection
from flows.run_recipe import read_recipe
from rstar.annotation import Annotation
from rstar.inference.budget import Budget
from rstar.protocols import UserError
from rstar.search import SearchSettings
from store import files
from store.layout import Run
from tasks.evaluation import EvaluationSettings
from tasks.lib.engines import RULES, EngineSettings, Models, SandboxSettings, find_checkpoint
from tasks.problems import ProblemSource
from tasks.rollouts import SearchPlan


def round_section(recipe: Recipe, round: int) -> RoundSection:
    """Return the section of a round; rounds count from 1."""
    return recipe.rounds[round - 1]


def problem_source(recipe: Recipe, split: str) -> ProblemSource:
    """Return where the problems of a split (train or test) come from."""
    problems = recipe.problems
    if split == "train":
        return ProblemSource(problems.train, problems.train_file, problems.level, problems.max_train, recipe.domain)
    return ProblemSource(problems.test, problems.test_file, problems.level, problems.max_test, recipe.domain)


def search_models(recipe: Recipe, root: str, round: int) -> Models:
    """Return the models that a round searches with, which the round before trained unless its policy is another."""
    section, run = round_section(recipe, round), Run(root)
    policies = {
        "bootstrap": recipe.model.bootstrap,
        "base": recipe.model.base,
        "previous": run.models(round - 1, "policy"),
    }
    ppm = run.models(round - 1, "ppm") if section.scorer == "previous" else None
    searching = models(recipe, policies[section.policy], ppm, section.temperature, root)
    if section.policy != "bootstrap":
        return searching
    return replace(
        searching,
        engine=replace(searching.engine, urls=tuple(recipe.engine.bootstrap_urls)),
        few_shot=recipe.model.bootstrap_prompt == "few_shot",
    )


def synthesis_models(recipe: Recipe, root: str, round: int) -> Models:
    """Return the models that solve the new problems of a round: the policy of its search, without a PPM."""
    return search_models(recipe, root, round).without_ppm().with_temperature(recipe.synthesis.temperature)


def trained_models(recipe: Recipe, root: str, round: int) -> Models:
    """Return the models that are evaluated after a round: those it trained, or else the policy it searched with.

    Round 0 has the base model.
    """
    run = Run(root)
    if round == 0:
        return models(recipe, recipe.model.base, None, recipe.evaluation.temperature, root)
    section = round_section(recipe, round)
    if not section.train_policy:
        return search_models(recipe, root, round).without_ppm()
    ppm = run.models(round, "ppm") if section.train_ppm else None
    return models(recipe, run.models(round, "policy"), ppm, recipe.evaluation.temperature, root)


def models(recipe: Recipe, policy: str, ppm: str | None, temperature: float, root: str = "") -> Models:
    """Return a policy and a PPM with the recipe's limits and engine."""
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
        engine=_engine(recipe, root),
    )


def _engine(recipe: Recipe, root: str) -> EngineSettings:
    """Return the engine. Servers write their logs to the folder of the run, unless that is in an object store."""
    section = recipe.engine.model_dump(exclude={"bootstrap_urls", "policy_urls", "ppm_urls"})
    log_dir = Run(root).path("logs") if root and not files.is_remote(root) else ""
    urls, ppm_urls = tuple(recipe.engine.policy_urls), tuple(recipe.engine.ppm_urls)
    return EngineSettings(urls=urls, ppm_urls=ppm_urls, log_dir=log_dir, **section)


def device(recipe: Recipe) -> str:
    """Return the device of engines and training; empty means a GPU if there is one."""
    return "" if recipe.model.device == "auto" else recipe.model.device


def base_model(recipe: Recipe) -> str:
    """Return the checkpoint of the base model. Raises UserError if it is missing."""
    return find_checkpoint(recipe.model.base)


def sandbox(recipe: Recipe) -> SandboxSettings:
    """Return where the code of steps runs, and its limits."""
    return SandboxSettings(**recipe.sandbox.model_dump())


def search_plan(recipe: Recipe, round: int) -> SearchPlan:
    """Return how long a round searches each problem."""
    section = round_section(recipe, round)
    more_rollouts = (section.hard_rollouts, *section.unsolved_rollouts)
    return SearchPlan(
        settings=_search_settings(recipe, section.num_rollouts, section.num_candidates, Annotation(section.annotation)),
        seed=round_seed(recipe, round),
        more_rollouts=tuple(num_rollouts for num_rollouts in more_rollouts if num_rollouts),
        extra_trees=section.extra_trees,
        max_in_flight=recipe.search.max_in_flight,
        max_tokens_in_flight=recipe.search.max_tokens_in_flight,
    )


def evaluation_settings(recipe: Recipe, round: int | None = None) -> EvaluationSettings:
    """Return how the models of a round are evaluated: with the same settings and seed in all rounds.

    The exception is `system_problems`, which limits all rounds but the last. Without a round there is no limit.
    """
    section = recipe.evaluation
    return EvaluationSettings(
        search=inference_settings(recipe),
        seed=recipe.run.seed,
        top_k=section.top_k,
        majority=section.majority,
        methods=tuple(section.methods),
        beam_width=section.beam_width,
        num_system_problems=None if round in (None, len(recipe.rounds)) else section.system_problems,
        heldout_pairs=section.pair_problems > 0,
        max_in_flight=recipe.search.max_in_flight,
    )


def inference_settings(recipe: Recipe) -> SearchSettings:
    """Return the settings of deep thinking."""
    section = recipe.evaluation
    return _search_settings(recipe, section.num_rollouts, section.num_candidates, Annotation.INFERENCE)


def budget(recipe: Recipe) -> Budget:
    """Return the default budget of deep thinking: as many trajectories as in the evaluation."""
    return Budget(trajectories=recipe.evaluation.num_rollouts)


def pair_settings(recipe: Recipe) -> SearchSettings:
    """Return the settings of the search for held-out pairs."""
    section = recipe.evaluation
    return _search_settings(recipe, section.pair_rollouts, section.pair_candidates, Annotation.TERMINAL)


def _search_settings(recipe: Recipe, num_rollouts: int, num_candidates: int, annotation: Annotation) -> SearchSettings:
    return SearchSettings(
        num_rollouts=num_rollouts,
        num_candidates=num_candidates,
        max_depth=recipe.search.max_depth,
        exploration=recipe.search.exploration,
        annotation=annotation,
        rollouts_in_flight=recipe.search.rollouts_in_flight,
    )


def makes_heldout_pairs(recipe: Recipe, round: int) -> bool:
    """Return whether a round makes the held-out pairs: the first one that trains a policy does."""
    trained = [section.train_policy for section in recipe.rounds[:round]]
    return recipe.evaluation.pair_problems > 0 and trained[-1] and not any(trained[:-1])


def round_seed(recipe: Recipe, round: int) -> int:
    """Return the seed of a round."""
    return recipe.run.seed * 1000 + round


def synthesis_seed(recipe: Recipe, round: int) -> int:
    """Return the seed of a round's synthesis. It differs from that of the search.

    With equal seeds the search would repeat the samples that gave a synthetic problem its label.
    """
    return round_seed(recipe, round) + 500


def training_rounds(round: int, *, accumulate: bool) -> list[int]:
    """Return the rounds whose data a round trains on."""
    return list(range(1, round + 1)) if accumulate else [round]


def last_models(root: str, overrides: Sequence[str] = ()) -> tuple[Recipe, Models]:
    """Return the recipe of a run, with overrides, and the models of the last round that has trained models."""
    recipe = read_recipe(root, overrides)
    return recipe, trained_models(recipe, root, last_trained_round(recipe, root))


def thinking_models(root: str, overrides: Sequence[str] = ()) -> tuple[Recipe, Models]:
    """Return the same as `last_models`. Raises UserError if there is no PPM, which deep thinking needs."""
    recipe, models = last_models(root, overrides)
    if models.ppm is None:
        raise UserError(f"{root}: its last round has no PPM, which deep thinking needs")
    return recipe, models


def last_trained_round(recipe: Recipe, root: str) -> int:
    """Return the last round whose models are trained. Raises UserError if there is none."""
    run = Run(root)
    for round in range(len(recipe.rounds), 0, -1):
        section = round_section(recipe, round)
        kinds = ("policy",) * section.train_policy + ("ppm",) * section.train_ppm
        if kinds and all(files.exists(f"{run.models(round, kind)}/manifest.json") for kind in kinds):
            return round
    raise UserError(f"{root}: no round has trained models yet; resume the run with `rstar evolve`")
