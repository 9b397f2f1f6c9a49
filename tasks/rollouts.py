"""MCTS rollouts: the trees of one shard, all searched concurrently in one event loop.

Section 3.2, and Section 3.4.2 for the extra rollouts and trees of unsolved problems.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace

from prefect import task

from rstar.journal import Journal, JournalledPolicy, JournalledScorer
from rstar.protocols import Problem
from rstar.search import SearchSettings, search
from rstar.tree import Tree
from store import files, journal, shards
from store.journal import FileJournal
from store.layout import Run
from tasks.lib.admission import AdmittedPolicy
from tasks.lib.concurrency import map_concurrently, relax_garbage_collection
from tasks.lib.engines import Engines, Models, SandboxSettings, open_engines
from tasks.lib.phases import peak_memory_bytes
from tasks.lib.problems import shard_problems
from tasks.lib.progress import Stage
from tasks.lib.retries import CACHE_POLICY, infrastructure_failed
from tasks.lib.trees import node_rows, tree_seed
from tasks.search_costs import engine_counts, read_shard_counts, sandbox_counts, shard_summary


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """How long each problem is searched, and how much is searched at the same time."""

    settings: SearchSettings
    seed: int
    more_rollouts: tuple[int, ...] = ()  # for a problem that is still unsolved, one number after the other
    extra_trees: int = 0  # with other seeds, for a problem that is still unsolved
    max_in_flight: int = 64  # trees
    max_tokens_in_flight: int | None = None  # requested from the policy, including prompts; None: no limit


@task(
    persist_result=True, cache_policy=CACHE_POLICY, retries=2, retry_delay_seconds=5, timeout_seconds=24 * 3600,
    retry_condition_fn=infrastructure_failed, task_run_name="rollouts-{round}-{shard}",
)  # fmt: skip
async def search_problems(
    root: str, round: int, shard: int, num_shards: int, *, recipe: str, models: Models, sandbox: SandboxSettings,
    plan: SearchPlan,
) -> dict[str, float]:  # fmt: skip
    """Search the problems of a shard, write their trees and return the shard's counts. A complete shard is skipped.

    A journal keeps the answers of the models. An interrupted shard continues from it and ends with the same trees.
    """
    run = Run(root)
    if files.exists(shard_summary(run, round, shard)) and files.exists(run.nodes(round, shard)):
        journal.discard(shard_journal(run, round, shard))
        return read_shard_counts(run, round, shard)
    relax_garbage_collection()
    problems = longest_first(shard_problems(run, round, shard, num_shards))
    start = time.monotonic()
    stage = Stage(f"search {shard + 1}/{num_shards}", round, len(problems))
    num_solved = 0

    async def search_one(problem: Problem) -> list[Tree]:
        nonlocal num_solved
        trees = await search_problem(problem, journalled_engines, plan)
        num_solved += any(map(is_solved, trees))
        await stage.advance(note=f"{num_solved} solved")
        return trees

    origin = {"round": round, "shard": shard, "model": models.fingerprint, "recipe": recipe}
    async with open_engines(models, sandbox) as engines:
        with FileJournal(shard_journal(run, round, shard), origin) as entries:
            journalled_engines = with_journal(engines, plan, entries)
            trees_of_problems = await map_concurrently(search_one, problems, limit=plan.max_in_flight)
        engine_costs = sandbox_counts(engines.executor.metrics()) | engine_counts(engines)
    rows = [row for trees in trees_of_problems for row in node_rows(trees, run=run.name, **origin)]
    shards.write_rows(run.nodes(round, shard), "nodes", rows)
    counts = {
        "problems": len(problems),
        "solved": num_solved,
        "trees": sum(map(len, trees_of_problems)),
        "nodes": len(rows),
        "num_tokens": sum(tree.num_tokens for trees in trees_of_problems for tree in trees),
        "seconds": time.monotonic() - start,
        "peak_memory_bytes": peak_memory_bytes(),
        **engine_costs,
    }
    files.write_bytes(shard_summary(run, round, shard), json.dumps(counts).encode())
    journal.discard(shard_journal(run, round, shard))
    return counts


def longest_first(problems: list[Problem]) -> list[Problem]:
    """Return the problems in the order in which their searches start.

    Long questions tend to have large trees. Started last, such a tree would still run when all others have ended.
    """
    return sorted(problems, key=lambda problem: -len(problem.question))


def with_journal(engines: Engines, plan: SearchPlan, entries: Journal) -> Engines:
    """Return engines that answer from the journal first. The token limit applies to what the journal does not know."""
    policy, scorer = engines.policy, engines.scorer
    if plan.max_tokens_in_flight is not None:
        policy = AdmittedPolicy(policy, plan.max_tokens_in_flight)
    return replace(
        engines,
        policy=JournalledPolicy(policy, entries),
        scorer=JournalledScorer(scorer, entries) if scorer else None,
    )


async def search_problem(problem: Problem, engines: Engines, plan: SearchPlan) -> list[Tree]:
    """Search one problem. While it is unsolved, add rollouts to its tree, then trees with other seeds."""
    arguments = engines.for_search()
    seeds = [tree_seed(plan.seed, problem.id, number) for number in range(1 + plan.extra_trees)]
    tree = await search(problem, **arguments, settings=plan.settings, seed=seeds[0])
    for num_rollouts in plan.more_rollouts:
        if is_solved(tree) or tree.root.closed:
            break
        settings = replace(plan.settings, num_rollouts=num_rollouts)
        tree = await search(problem, **arguments, settings=settings, tree=tree)
    trees = [tree]
    for seed in seeds[1:]:
        if any(map(is_solved, trees)):
            break
        trees.append(await search(problem, **arguments, settings=plan.settings, seed=seed))
    return trees


def is_solved(tree: Tree) -> bool:
    """Return whether a tree has a correct answer."""
    return any(node.correct for node in tree.nodes)


def shard_journal(run: Run, round: int, shard: int) -> str:
    """Return the path of a shard's journal, which is deleted once the shard is complete."""
    return run.nodes(round, shard).removesuffix(".parquet") + ".journal.jsonl"
