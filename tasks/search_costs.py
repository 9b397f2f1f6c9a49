"""The costs of a round's search: what each shard counted, and their sum in the rounds table."""

from __future__ import annotations

import json

from prefect import task

from store import files
from store.layout import Run
from tasks.lib.engines import Engines, Metered
from tasks.lib.phases import Phase, finished
from tasks.lib.retries import CACHE_POLICY, infrastructure_failed

SUMMED_PREFIXES = ("sandbox_", "policy_", "ppm_")


@task(
    persist_result=True, cache_policy=CACHE_POLICY, retries=2, retry_delay_seconds=5, timeout_seconds=600,
    retry_condition_fn=infrastructure_failed, task_run_name="search-{round}",
)  # fmt: skip
def sum_search_costs(root: str, round: int, shard_counts: list[dict[str, float]], recipe: str) -> dict[str, int]:
    """Write the sum of the shards' counts as the row of the search phase."""
    run = Run(root)
    if (done := finished(run, round, "search")) is not None:
        return done
    with Phase(run, round, "search", recipe=recipe) as phase:
        names = {name for counts in shard_counts for name in counts}  # shards may have used different engines
        totals = {name: sum(counts.get(name, 0) for counts in shard_counts) for name in sorted(names)}
        phase.seconds = totals["seconds"]
        phase.num_tokens = int(totals["num_tokens"])
        phase.counts = {name: int(totals[name]) for name in ("problems", "solved", "trees", "nodes")}
        phase.counts |= {name: int(totals[name]) for name in totals if name.startswith(SUMMED_PREFIXES)}
    return phase.counts


def shard_summary(run: Run, round: int, shard: int) -> str:
    """Return the path of the file with a shard's counts. It is written last: a shard with a summary is complete."""
    return run.nodes(round, shard).removesuffix(".parquet") + ".json"


def read_shard_counts(run: Run, round: int, shard: int) -> dict[str, float]:
    """Read the counts of a complete shard."""
    return dict(json.loads(files.read_bytes(shard_summary(run, round, shard))))


def engine_counts(engines: Engines) -> dict[str, float]:
    """Return the counts of policy and PPM as whole numbers, which can be summed. Engines without counts have none."""
    counts: dict[str, float] = {}
    for name, engine in (("policy", engines.policy), ("ppm", engines.scorer)):
        if isinstance(engine, Metered):
            metrics = engine.metrics()
            counts |= {f"{name}_{key.removeprefix('num_')}": metrics[key] for key in metrics if key != "busy_seconds"}
            counts[f"{name}_busy_ms"] = round(1000 * metrics["busy_seconds"])
    return counts


def sandbox_counts(metrics: dict[str, float]) -> dict[str, float]:
    """Return the counts of a sandbox as whole numbers, which can be summed."""
    counts = {f"sandbox_{name}": value for name, value in metrics.items() if not name.endswith(("seconds", "share"))}
    times = {f"sandbox_{name}_ms": round(1000 * metrics[name]) for name in ("seconds", "wait_seconds")}
    return counts | times
