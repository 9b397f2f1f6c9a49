"""A recipe is read, or its first wrong key is named in one line."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from flows.plans import evaluation_settings, models, search_models, search_plan
from flows.recipe import RECIPES, load_recipe
from flows.recipe_sections import Level
from flows.run_recipe import difference, flatten, read_recipe, store_recipe
from miniature.problems import generate
from models.training.config import TrainingConfig
from rstar.protocols import UserError
from tasks.lib.engines import EngineSettings

SHIPPED = sorted(path.stem for path in RECIPES.glob("*.toml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_is_valid(name: str) -> None:
    assert load_recipe(name).run.name == name


def test_the_papers_recipe_has_the_papers_numbers() -> None:
    rounds = load_recipe("paper").rounds
    assert [(r.num_rollouts, r.num_candidates, r.annotation, r.scorer) for r in rounds] == [
        (8, 5, "terminal", "none"),
        (16, 8, "terminal", "none"),
        (16, 8, "ppm", "previous"),
        (16, 16, "ppm", "previous"),
    ]
    assert search_plan(load_recipe("paper"), 4).more_rollouts == (16, 64, 128)


def test_a_number_of_the_search_or_the_examination_is_a_recipe_value() -> None:
    recipe = load_recipe("smoke", ["model.max_context=300", "evaluation.top_k=3", "search.exploration=1.5"])
    assert models(recipe, "rules", None, 1.0).max_context == 300
    assert evaluation_settings(recipe).top_k == 3
    assert search_plan(recipe, 1).settings.exploration == 1.5


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("rounds.1.num_rolouts=4", ["rounds.1.num_rolouts", "unknown key", "got 4", "did you mean num_rollouts?"]),
        ("rounds.2.num_rollouts=-4", ["rounds.2.num_rollouts", "got -4", "greater than or equal to 1"]),
        ("rounds.1.num_rollouts=many", ["rounds.1.num_rollouts", "got 'many'", "integer"]),
        ("rounds.1.policy=previous", ["rounds.1", "there is none", "'bootstrap'"]),
        ("rounds.1.train_ppm=false", ["rounds.2.scorer", "rounds.1.train_ppm = true"]),
        ("rounds.1.train_policy=false", ["rounds.1", "train_ppm = true needs train_policy = true"]),
        ("rounds.1.annotation=ppm", ["rounds.1", "scorer = 'previous'"]),
        ("problems.train.gsn=4", ["problems.train.gsn", "'gsm', 'math' or 'olympiad'"]),
        ("problems.train_file=x.jsonl", ["problems", "train_file", "one of them"]),
        ("sandbox.provider=podman", ["sandbox.provider", "got 'podman'", "'local'"]),
        ("ppm={loss='orm',center_rewards_coefficient=0.1}", ["ppm", "goes with loss = 'ppm', not with 'orm'"]),
        ("synthesis.min_agreeing=30", ["synthesis", "min_agreeing = 30"]),
        ("sandbx.provider=local", ["sandbx", "unknown key", "did you mean sandbox?"]),
        ("rounds.9.num_rollouts=4", ["rounds.9.num_rollouts", "no key"]),
        ("rounds.0.num_rollouts=4", ["rounds.0.num_rollouts", "no key"]),
        ("sft.learning_rate=inf", ["sft.learning_rate", "got inf", "finite"]),
        ("sft.embedding_learning_rate=1e-3", ["sft", "optimizer = 'muon'"]),
        ("run.seed=-1", ["run.seed", "got -1", "greater than or equal to 0"]),
        ("run.seed=5_000_000", ["run.seed", "less than or equal to"]),
        ("sft", ["expected key=value"]),
        ("engine.kind=sglang", ["engine.kind", "got 'sglang'", "'vllm'"]),
        ('engine.policy_urls=["http://gpu:8000"]', ["engine", "kind = 'transformers' asks no endpoint"]),
    ],
)
def test_a_wrong_key_is_named_with_what_it_got_and_what_is_allowed(override: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe("smoke", [override])
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def test_problems_can_be_generated_at_each_level_of_a_recipe() -> None:
    levels = get_args(Level)
    made = generate(dict.fromkeys(levels, 1), seed=0, split="train")
    assert [one.problem.level for one in made] == list(levels)


def test_a_recipe_that_is_not_toml_or_not_there_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("rounds = [")
    with pytest.raises(UserError, match="not valid TOML"):
        load_recipe(tmp_path / "bad.toml")
    with pytest.raises(UserError, match=r"no such file; .* smoke"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(UserError, match="no such file"):
        load_recipe(tmp_path)


def test_a_runs_recipe_that_is_torn_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"run": {"na')
    with pytest.raises(UserError, match=r"recipe.json: not JSON"):
        read_recipe(str(tmp_path))


def test_the_hash_names_what_may_change_a_result_and_nothing_else() -> None:
    recipe = load_recipe("smoke")
    assert recipe.hash == load_recipe("smoke", ["run.shards=7", "run.workers=3", "run.name=other"]).hash
    assert recipe.hash != load_recipe("smoke", ["run.seed=1"]).hash
    assert recipe.hash != load_recipe("smoke", ["rounds.2.num_rollouts=3"]).hash


def test_where_the_engines_are_changes_no_result_and_which_they_are_may(tmp_path: Path) -> None:
    recipe = load_recipe("smoke")
    vllm = load_recipe("smoke", ["engine.kind=vllm"])
    moved = load_recipe("smoke", ["engine.kind=vllm", 'engine.policy_urls=["http://gpu:8000"]', "engine.replicas=4"])
    assert recipe.hash == load_recipe("smoke", ["engine.replicas=4"]).hash
    assert recipe.hash != vllm.hash == moved.hash
    assert difference(recipe, moved) == "engine.kind is 'transformers' there and 'vllm' here"
    store_recipe(vllm, str(tmp_path))
    store_recipe(moved, str(tmp_path))
    assert read_recipe(str(tmp_path)) == moved
    assert (
        read_recipe(str(tmp_path), ["engine.kind=transformers", "engine.policy_urls=[]"]).engine.kind == "transformers"
    )
    assert read_recipe(str(tmp_path)) == moved  # what is overridden is not kept
    with pytest.raises(UserError, match=r"recipe\.json with --set engine\.kind=vlm: engine\.kind"):
        read_recipe(str(tmp_path), ["engine.kind=vlm"])


def test_the_bootstrap_model_has_endpoints_of_its_own() -> None:
    urls = ['engine.bootstrap_urls=["http://big:8000"]', 'engine.policy_urls=["http://small:8000"]']
    second_round = ["rounds.2.policy=base", "rounds.2.scorer=none", "rounds.2.annotation=terminal"]
    recipe = load_recipe("smoke", ["engine.kind=vllm", *urls, *second_round])
    first, second = (search_models(recipe, "runs/smoke", round).engine for round in (1, 2))
    assert (first.urls, second.urls) == (("http://big:8000",), ("http://small:8000",))
    assert first.log_dir.endswith("runs/smoke/logs")
    assert search_models(load_recipe("smoke"), "s3://bucket/smoke", 1).engine == EngineSettings()


def test_the_difference_of_two_recipes_is_named_by_its_key() -> None:
    other = load_recipe("smoke", ["rounds.2.num_rollouts=3", "run.shards=9"])
    assert difference(load_recipe("smoke"), other) == "rounds.2.num_rollouts is 2 there and 3 here"
    assert flatten({"a": {"b": [{"c": 1}]}}) == {"a.b.1.c": 1}


def test_each_training_key_of_a_recipe_is_one_of_the_training_process() -> None:
    known = {field.name for field in fields(TrainingConfig)}
    demo = load_recipe("demo")
    for section in (demo.sft, demo.ppm):
        assert set(section.hyperparameters()) <= known
    assert demo.sft.hyperparameters()["neftune_noise_alpha"] == 10
