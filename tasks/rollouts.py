"""MCTS rollouts: the trees of one shard, all at once in one event loop.

Section 3.2, and Section 3.4.2 for the further rollouts and trees of problems that stay unsolved.
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
from tasks.lib.concurrency import collect_seldom, map_concurrently
from tasks.lib.engines import Engines, Metered, Models, Sandbox, opened
from tasks.lib.phases import peak_memory_bytes
from tasks.lib.problems import shard_problems
from tasks.lib.progress import Stage
from tasks.lib.retries import KEPT, infrastructure_failed
from tasks.lib.trees import node_rows, tree_seed


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard each problem is searched."""

    settings: SearchSettings
    seed: int
    more_rollouts: tuple[int, ...] = ()  # one after the other, while no correct trajectory is found
    extra_trees: int = 0  # with other seeds, while none is found
    max_in_flight: int = 64  # trees
    max_tokens_in_flight: int | None = None  # asked of the policy at once, prompts included; None: any number


@task(
    persist_result=True, cache_policy=KEPT, retries=2, retry_delay_seconds=5, timeout_seconds=24 * 3600,
    retry_condition_fn=infrastructure_failed, task_run_name="rollouts-{round}-{shard}",
)  # fmt: skip
async def search_problems(
    root: str, round: int, shard: int, num_shards: int, *, recipe: str, models: Models, sandbox: Sandbox, effort: Effort
) -> dict[str, float]:
    """Search a shard's problems and write their trees; return counts. A shard that is there is not searched again.

    What the models say is journalled: a shard that was cut off goes on inside its trees and ends with the same ones.
    """
    run = Run(root)
    if files.exists(summary_of(run, round, shard)) and files.exists(run.nodes(round, shard)):
        journal.discard(journal_of(run, round, shard))
        return shard_counts(run, round, shard)
    collect_seldom()
    problems = longest_first(shard_problems(run, round, shard, num_shards))
    start = time.monotonic()
    stage = Stage(f"search {shard + 1}/{num_shards}", round, len(problems))
    solved = 0

    async def one(problem: Problem) -> list[Tree]:
        nonlocal solved
        trees = await search_problem(problem, engines, effort)
        solved += any(map(is_solved, trees))
        await stage.advance(note=f"{solved} solved")
        return trees

    origin = {"round": round, "shard": shard, "model": models.fingerprint, "recipe": recipe}
    async with opened(models, sandbox) as engines:
        with FileJournal(journal_of(run, round, shard), origin) as kept:
            metered, engines = engines, prepared(engines, effort, kept)
            forests = await map_concurrently(one, problems, limit=effort.max_in_flight)
        executed, asked = metered.executor.metrics(), engine_counts(metered)
    rows = [row for trees in forests for row in node_rows(trees, run=run.name, **origin)]
    shards.write_rows(run.nodes(round, shard), "nodes", rows)
    counts = {
        "problems": len(problems),
        "solved": solved,
        "trees": sum(map(len, forests)),
        "nodes": len(rows),
        "num_tokens": sum(tree.num_tokens for trees in forests for tree in trees),
        "seconds": time.monotonic() - start,
        "peak_memory_bytes": peak_memory_bytes(),
        **sandbox_counts(executed),
        **asked,
    }
    files.write_bytes(summary_of(run, round, shard), json.dumps(counts).encode())
    journal.discard(journal_of(run, round, shard))
    return counts


def longest_first(problems: list[Problem]) -> list[Problem]:
    """The order in which trees are begun: long questions tend to have large trees, and one begun last is waited for."""
    return sorted(problems, key=lambda problem: -len(problem.question))


def prepared(engines: Engines, effort: Effort, journal: Journal) -> Engines:
    """Put the journal before policy and PPM, and the gate between the journal and the policy."""
    policy, scorer = engines.policy, engines.scorer
    if effort.max_tokens_in_flight is not None:
        policy = AdmittedPolicy(policy, effort.max_tokens_in_flight)
    return replace(
        engines,
        policy=JournalledPolicy(policy, journal),
        scorer=JournalledScorer(scorer, journal) if scorer else None,
    )


async def search_problem(problem: Problem, engines: Engines, effort: Effort) -> list[Tree]:
    """Search one problem, harder while it is unsolved."""
    given = engines.for_search()
    seeds = [tree_seed(effort.seed, problem.id, number) for number in range(1 + effort.extra_trees)]
    tree = await search(problem, **given, settings=effort.settings, seed=seeds[0])
    for num_rollouts in effort.more_rollouts:
        if is_solved(tree) or tree.root.closed:
            break
        settings = replace(effort.settings, num_rollouts=num_rollouts)
        tree = await search(problem, **given, settings=settings, tree=tree)
    trees = [tree]
    for seed in seeds[1:]:
        if any(map(is_solved, trees)):
            break
        trees.append(await search(problem, **given, settings=effort.settings, seed=seed))
    return trees


def engine_counts(engines: Engines) -> dict[str, float]:
    """What policy and PPM did, in whole numbers that shards can add up; nothing of a writer that is no model."""
    counts: dict[str, float] = {}
    for name, engine in (("policy", engines.policy), ("ppm", engines.scorer)):
        if isinstance(engine, Metered):
            metrics = engine.metrics()
            counts |= {f"{name}_{key.removeprefix('num_')}": metrics[key] for key in metrics if key != "busy_seconds"}
            counts[f"{name}_busy_ms"] = round(1000 * metrics["busy_seconds"])
    return counts


def sandbox_counts(metrics: dict[str, float]) -> dict[str, float]:
    """What the sandbox did, in whole numbers that shards can add up."""
    counts = {f"sandbox_{name}": value for name, value in metrics.items() if not name.endswith(("seconds", "share"))}
    times = {f"sandbox_{name}_ms": round(1000 * metrics[name]) for name in ("seconds", "wait_seconds")}
    return counts | times


def summary_of(run: Run, round: int, shard: int) -> str:
    """Name the file that says what a shard cost, written last."""
    return run.nodes(round, shard).removesuffix(".parquet") + ".json"


def journal_of(run: Run, round: int, shard: int) -> str:
    """Name the journal of a shard; it is gone once the shard's table is written."""
    return run.nodes(round, shard).removesuffix(".parquet") + ".journal.jsonl"


def shard_counts(run: Run, round: int, shard: int) -> dict[str, float]:
    return dict(json.loads(files.read_bytes(summary_of(run, round, shard))))


def is_solved(tree: Tree) -> bool:
    return any(node.correct for node in tree.nodes)
