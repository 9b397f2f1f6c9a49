"""SFT and PPM training, each in a process of its own, which writes a Hugging Face checkpoint and a manifest.

Section 3.4.2: every round's policy starts from the base model, every round's PPM from that round's policy.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task

from models.training.launcher import run_trainer
from rstar.pairs import is_clear
from rstar.protocols import UserError
from store import files, shards
from store.layout import Run
from tasks.lib.concurrency import map_concurrently
from tasks.lib.phases import Phase, finished
from tasks.lib.progress import Stage
from tasks.lib.retries import KEPT, infrastructure_failed
from tasks.problems import round_problems

SEEDS_APART = 100_000  # of the trainings of one policy


@task(
    persist_result=True, cache_policy=KEPT, retries=1, retry_delay_seconds=10, timeout_seconds=24 * 3600,
    retry_condition_fn=infrastructure_failed, task_run_name="sft-{round}",
)  # fmt: skip
async def train_policy(
    root: str, round: int, *, base: str, rounds: list[int], num_averaged: int, hyperparameters: Mapping[str, Any],
    seed: int, recipe: str,
) -> dict[str, int]:  # fmt: skip
    """Fine-tune the base model on the SFT sets of `rounds`; the policy is the mean of `num_averaged` such trainings.

    Of a synthetic problem older choices count where this round chose one as well: if not, its label may be suspect.
    """
    run = Run(root)
    if (done := finished(run, round, "sft", manifest(run, round, "policy"))) is not None:
        return done
    rows = training_set(run, round, rounds)
    if not rows:
        raise UserError(f"round {round}: no correct trajectory to train on; search harder, or give easier problems")
    job = Job("models.training.sft", run.models(round, "policy"), "sft", rows)
    return await train(
        run, round, job, {"base": base, "seed": seed, **hyperparameters}, recipe=recipe, num_averaged=num_averaged
    )


@task(
    persist_result=True, cache_policy=KEPT, retries=1, retry_delay_seconds=10, timeout_seconds=24 * 3600,
    retry_condition_fn=infrastructure_failed, task_run_name="ppm-{round}",
)  # fmt: skip
async def train_ppm(
    root: str, round: int, *, rounds: list[int], min_margin: float, min_edit_distance: int,
    hyperparameters: Mapping[str, Any], seed: int, recipe: str,
) -> dict[str, int]:  # fmt: skip
    """Train the PPM, from the weights of the round's policy, on the clear preference pairs of `rounds`."""
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
    base = run.models(round, "policy")
    return await train(run, round, job, {"base": base, "seed": seed, **hyperparameters}, recipe=recipe)


def training_set(run: Run, round: int, rounds: list[int]) -> list[dict[str, Any]]:
    """The chosen trajectories of `rounds`, the last of which is `round`; of equal texts the last one."""
    rows = [row for number in rounds for row in shards.read_rows(run.sft(number), "sft")]
    unsure = round_problems(run, round).synthetic - {row["problem_id"] for row in rows if row["round"] == round}
    return list({(row["question"], row["response"]): row for row in rows if row["problem_id"] not in unsure}.values())


@dataclass(frozen=True, slots=True)
class Job:
    """A training process: its module, the checkpoint it writes, and the rows it is given."""

    module: str
    out: str
    table: str
    rows: list[dict[str, Any]]

    @property
    def phase(self) -> str:
        return self.module.removeprefix("models.training.")


async def train(
    run: Run, round: int, job: Job, config: dict[str, Any], *, recipe: str, num_averaged: int = 1
) -> dict[str, int]:
    """Run a training process, or several whose weights are averaged: on `device = "cpu"` at once, a core or more each.

    What a process was given and what it said stays beside the checkpoint.
    """
    data = f"{job.out}.data.parquet"
    outs = [job.out] if num_averaged == 1 else [f"{job.out}.{number}" for number in range(1, num_averaged + 1)]
    on_cpu, cores = config["device"] == "cpu", len(os.sched_getaffinity(0))
    at_once = min(num_averaged, cores) if on_cpu else 1
    with Phase(run, round, job.phase, recipe=recipe) as measured:
        shards.write_rows(data, job.table, job.rows)
        config |= {"data": data, "extra": {"run": run.name, "round": round, "recipe": recipe}}
        if on_cpu:
            config["threads"] = config["threads"] or cores // at_once
        stage, steps = Stage(job.phase, round, 0), [0] * num_averaged

        async def one(number: int) -> None:
            async def tell(step: int, of: int, note: str) -> None:
                steps[number], stage.total = step, of * num_averaged
                await stage.reach(sum(steps), note)

            out = outs[number]
            own = {"out": out, "seed": config["seed"] + SEEDS_APART * number}
            files.write_bytes(f"{out}.config.json", json.dumps(config | own, indent=1).encode())
            await run_trainer(job.module, f"{out}.config.json", f"{out}.log", tell, fork=on_cpu)

        try:
            await map_concurrently(one, range(num_averaged), limit=at_once)
        finally:
            for out in outs:
                shutil.rmtree(f"{out}.trainer", ignore_errors=True)  # where the trainer would keep its states
        figures = [json.loads(files.read_bytes(f"{out}/manifest.json")).get("figures", {}) for out in outs]
        if num_averaged > 1:
            await asyncio.to_thread(_average, outs, job.out)
        measured.num_tokens = sum(int(each.get("num_tokens", 0)) for each in figures)
        measured.child_memory_bytes = sum(sorted(int(each.get("peak_memory_bytes", 0)) for each in figures)[-at_once:])
        measured.counts = {"examples": len(job.rows), "steps": sum(steps)}
    return measured.counts


def _average(checkpoints: list[str], out: str) -> None:
    from models.training.averaging import average  # loads torch

    average(list(map(Path, checkpoints)), Path(out))
    for checkpoint in checkpoints:
        shutil.rmtree(checkpoint)


def manifest(run: Run, round: int, kind: str) -> str:
    """Name the file that a checkpoint is whole with."""
    return f"{run.models(round, kind)}/manifest.json"
