"""SFT: the base model is fine-tuned on the chosen trajectories and becomes the round's policy.

Section 3.4 (SFT data) and Section 3.4.2: every round starts from the base model again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import task

from rstar.protocols import UserError
from store import shards
from store.layout import Run
from tasks.lib.phases import finished
from tasks.lib.problems import round_problems
from tasks.lib.retries import CACHE_POLICY, infrastructure_failed
from tasks.lib.training import Job, manifest, train


@task(
    persist_result=True, cache_policy=CACHE_POLICY, retries=1, retry_delay_seconds=10, timeout_seconds=24 * 3600,
    retry_condition_fn=infrastructure_failed, task_run_name="sft-{round}",
)  # fmt: skip
async def train_policy(
    root: str, round: int, *, base: str, rounds: list[int], num_averaged: int, hyperparameters: Mapping[str, Any],
    seed: int, recipe: str,
) -> dict[str, int]:  # fmt: skip
    """Fine-tune the base model on the SFT sets of `rounds`; average the weights of `num_averaged` such trainings."""
    run = Run(root)
    if (done := finished(run, round, "sft", manifest(run, round, "policy"))) is not None:
        return done
    rows = training_set(run, round, rounds)
    if not rows:
        raise UserError(f"round {round}: no correct trajectory to train on; search harder, or give easier problems")
    job = Job("models.training.sft", run.models(round, "policy"), "sft", rows)
    config = {"base": base, "seed": seed, **hyperparameters}
    return await train(run, round, job, config, recipe=recipe, num_averaged=num_averaged)


def training_set(run: Run, round: int, rounds: list[int]) -> list[dict[str, Any]]:
    """Return the chosen trajectories of `rounds`, the last of which is `round`. Of equal texts the last one counts.

    Choices of earlier rounds for a synthetic problem count only if this round chose a trajectory too. Otherwise the
    label of the problem is suspect.
    """
    rows = [row for number in rounds for row in shards.read_rows(run.sft(number), "sft")]
    suspect = round_problems(run, round).synthetic - {row["problem_id"] for row in rows if row["round"] == round}
    return list({(row["question"], row["response"]): row for row in rows if row["problem_id"] not in suspect}.values())
