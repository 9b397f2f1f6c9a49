"""A shard is the unit of work and of retry. It is complete or absent, and trees do not depend on the shards."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pyarrow as pa
import pytest
from prefect import flow, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId

from flows.recipe import Recipe, load_recipe
from flows.run_recipe import read_recipe, store_recipe
from flows.shard import search_shard
from rstar.protocols import UserError
from store import shards
from store.layout import Run
from tasks.lib.concurrency import map_concurrently
from tasks.lib.problems import shard_problems
from tasks.problems import generated_rows

pytestmark = pytest.mark.usefixtures("prefect_server")

BY_LEVEL = {"gsm": 5, "math": 4, "olympiad": 4}


def start_run(root: Path, num_shards: int) -> Recipe:
    """Write the recipe and the problems of a run; nothing is searched yet."""
    recipe = load_recipe("smoke", [f"run.shards={num_shards}", "rounds.1.extra_trees=1"])
    store_recipe(recipe, str(root))
    shards.write_rows(Run(root).problems("train"), "problems", generated_rows(BY_LEVEL, seed=3, split="train"))
    return recipe


async def search_all(root: Path, num_shards: int) -> None:
    for shard in range(num_shards):
        await search_shard(str(root), 1, shard)


def nodes(root: Path) -> bytes:
    tables = [shards.read_table(url, "nodes") for url in Run(root).shards(1)]
    return shards.to_bytes(shards.comparable(pa.concat_tables(tables), "nodes"))


def stamps(root: Path) -> dict[str, int]:
    return {url: Path(url).stat().st_mtime_ns for url in Run(root).shards(1)}


def block(root: Path, shard: int) -> Path:
    """Create a folder at the path of a shard's file, so that the file cannot be written."""
    obstacle = Path(Run(root).nodes(1, shard))
    obstacle.mkdir(parents=True)
    return obstacle


def test_every_problem_is_in_one_shard(tmp_path: Path) -> None:
    start_run(tmp_path, 7)
    parts = [shard_problems(Run(tmp_path), 1, shard, 7) for shard in range(7)]
    assert {len(part) for part in parts} == {1, 2}
    assert len({problem.id for part in parts for problem in part}) == sum(BY_LEVEL.values())


def test_node_tables_are_byte_identical_for_one_shard_and_for_seven_of_which_one_fails_first(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    start_run(whole, 1)
    asyncio.run(search_all(whole, 1))

    start_run(cut, 7)
    obstacle = block(cut, 3)
    with pytest.raises(UserError, match="cannot write"):
        asyncio.run(search_all(cut, 7))
    obstacle.rmdir()
    before = stamps(cut)
    asyncio.run(search_all(cut, 7))

    assert nodes(cut) == nodes(whole)
    assert len(before) == 3 and before.items() <= stamps(cut).items()


def test_shards_searched_concurrently_give_the_same_nodes_as_in_sequence(tmp_path: Path) -> None:
    one_by_one, at_once = tmp_path / "one", tmp_path / "at-once"
    start_run(one_by_one, 3)
    asyncio.run(search_all(one_by_one, 3))
    start_run(at_once, 3)
    asyncio.run(map_concurrently(lambda shard: search_shard(str(at_once), 1, shard), range(3), limit=3))
    assert nodes(at_once) == nodes(one_by_one)


def test_a_retry_of_a_flow_run_by_prefect_searches_only_the_missing_shard(tmp_path: Path) -> None:
    start_run(tmp_path, 3)
    obstacle = block(tmp_path, 2)
    before: dict[str, int] = {}
    run_id = ""

    @flow(retries=1, persist_result=True)
    async def two_attempts() -> None:
        nonlocal run_id
        run_id = str(runtime.flow_run.id)
        if runtime.flow_run.run_count == 2:
            obstacle.rmdir()
            before.update(stamps(tmp_path))
        await search_all(tmp_path, 3)

    async def attempts() -> dict[str, int]:
        await two_attempts()
        async with get_client() as client:
            children = await client.read_flow_runs(
                flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run_id]))
            )
        return {child.name: child.run_count for child in children}

    counts = asyncio.run(attempts())
    assert counts["round-1-shard-0"] == counts["round-1-shard-1"] == 1
    assert len(before) == 2 and before.items() <= stamps(tmp_path).items()
    assert len(Run(tmp_path).shards(1)) == 3


def test_another_recipe_in_the_same_folder_is_a_user_error(tmp_path: Path) -> None:
    recipe = start_run(tmp_path, 2)
    store_recipe(recipe, str(tmp_path))
    with pytest.raises(UserError, match=r"run.seed is 0 there and 5 here"):
        store_recipe(load_recipe("smoke", ["run.seed=5", "rounds.1.extra_trees=1"]), str(tmp_path))
    with pytest.raises(UserError, match=r"run.shards = 2, not 3"):
        store_recipe(load_recipe("smoke", ["run.shards=3", "rounds.1.extra_trees=1"]), str(tmp_path))


def test_a_run_without_a_table_takes_over_a_corrected_recipe(tmp_path: Path) -> None:
    store_recipe(load_recipe("smoke", ["run.seed=5"]), str(tmp_path))
    store_recipe(load_recipe("smoke"), str(tmp_path))
    assert read_recipe(str(tmp_path)) == load_recipe("smoke")
