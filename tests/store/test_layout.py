"""Where the files of a run are, and which format a run must have."""

import json
from pathlib import Path

import pytest

from rstar.protocols import UserError
from store.layout import RUN_FORMAT, Run, check_format


def test_paths_follow_the_documented_layout(tmp_path):
    run = Run(tmp_path / "demo")
    root = str(tmp_path / "demo")
    assert run.name == "demo"
    assert run.nodes(2, 7) == f"{root}/trees/round=2/shard=0007.parquet"
    assert run.sft(3) == f"{root}/sft/round=3.parquet"
    assert run.sft(3, "comparison") == f"{root}/sft/round=3-comparison.parquet"
    assert run.rounds(1, "search") == f"{root}/rounds/round=1-search.parquet"
    assert run.evaluations(0) == f"{root}/evaluations/round=0.parquet"
    assert run.models(1, "ppm") == f"{root}/models/round=1/ppm"
    assert run.report("md") == f"{root}/report.md"


def test_a_relative_root_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Run("runs/demo").root == str(tmp_path / "runs" / "demo")


def test_the_url_of_an_object_store_stays_as_it_is():
    assert Run("s3://bucket/runs/demo/").pairs(1) == "s3://bucket/runs/demo/pairs/round=1.parquet"


def test_it_lists_what_exists(small_run, tmp_path):
    assert small_run.shards(1) == [small_run.nodes(1, 0), small_run.nodes(1, 1)]
    assert small_run.files("pairs") == []
    assert small_run.exists()
    assert not Run(tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({}, r"an earlier version of rstar \(run format 1; .* read it with rstar 0.1"),
        ({"format": 1}, r"an earlier version of rstar \(run format 1;"),
        ([], r"an earlier version of rstar \(run format 1;"),
        ({"format": RUN_FORMAT + 1}, rf"a later version of rstar \(run format {RUN_FORMAT + 1}; .* upgrade rstar"),
    ],
)
def test_a_run_of_another_format_is_refused_in_one_line(tmp_path, recipe, words):
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(UserError, match=words) as refused:
        check_format(Run(tmp_path))
    assert str(refused.value).startswith(f"{tmp_path}: ") and "\n" not in str(refused.value)


def test_a_recipe_that_is_not_json_is_refused(tmp_path):
    (tmp_path / "recipe.json").write_text('{"format')
    with pytest.raises(UserError, match=r"recipe\.json: not JSON"):
        check_format(Run(tmp_path))


def test_a_run_of_this_format_or_without_a_recipe_is_accepted(small_run):
    check_format(small_run)
    Path(small_run.recipe).write_text(json.dumps({"format": RUN_FORMAT}))
    check_format(small_run)
