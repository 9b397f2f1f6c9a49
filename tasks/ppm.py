"""PPM training: the round's policy with a scalar head is trained on preference pairs.

Section 3.3 and Section 3.4.2: every round's PPM starts from that round's policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import task

from rstar.pairs import is_clear
from rstar.protocols import UserError
from store import shards
from store.layout import Run
from tasks.lib.phases import finished
from tasks.lib.retries import CACHE_POLICY, infrastructure_failed
from tasks.lib.training import Job, manifest, train


@task(
    persist_result=True, cache_policy=CACHE_POLICY, retries=1, retry_delay_seconds=10, timeout_seconds=24 * 3600,
    retry_condition_fn=infrastructure_failed, task_run_name="ppm-{round}",
)  # fmt: skip
async def train_ppm(
    root: str, round: int, *, rounds: list[int], min_margin: float, min_edit_distance: int,
    hyperparameters: Mapping[str, Any], seed: int, recipe: str,
) -> dict[str, int]:  # fmt: skip
    """Train the PPM, from the weights of the round's policy, on those pairs of `rounds` that pass the thresholds."""
    run = Run(root)
    if (done := finished(run, round, "ppm", manifest(run, round, "ppm"))) is not None:
        return done
    rows = [
        row
        for number in rounds
        for row in shards.read_rows(run.pairs(number), "pairs")
        if is_clear(row["margin"], row["edit_distance"], min_margin=min_margin, min_edit_distance=min_edit_distance)
    ]
    if not rows:
        raise UserError(f"round {round}: no preference pair to train on; lower ppm.min_margin or ppm.min_edit_distance")
    job = Job("models.training.ppm", run.models(round, "ppm"), "pairs", rows)
    return await train(
        run, round, job, {"base": run.models(round, "policy"), "seed": seed, **hyperparameters}, recipe=recipe
    )
