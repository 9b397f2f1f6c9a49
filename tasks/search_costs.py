"""What the shards of a round's search cost, added up into one row of the rounds table."""

from __future__ import annotations

from prefect import task

from store.layout import Run
from tasks.lib.phases import Phase, finished
from tasks.lib.retries import KEPT, infrastructure_failed

COUNTED = ("sandbox_", "policy_", "ppm_")


@task(
    persist_result=True, cache_policy=KEPT, retries=2, retry_delay_seconds=5, timeout_seconds=600,
    retry_condition_fn=infrastructure_failed, task_run_name="search-{round}",
)  # fmt: skip
def close_search(root: str, round: int, shard_counts: list[dict[str, float]], recipe: str) -> dict[str, int]:
    """Add up what the shards of a round cost."""
    run = Run(root)
    if (done := finished(run, round, "search")) is not None:
        return done
    with Phase(run, round, "search", recipe=recipe) as phase:
        names = {name for counts in shard_counts for name in counts}  # shards may have had different engines
        totals = {name: sum(counts.get(name, 0) for counts in shard_counts) for name in sorted(names)}
        phase.seconds = totals["seconds"]
        phase.num_tokens = int(totals["num_tokens"])
        phase.counts = {name: int(totals[name]) for name in ("problems", "solved", "trees", "nodes")}
        phase.counts |= {name: int(totals[name]) for name in totals if name.startswith(COUNTED)}
    return phase.counts
