"""Training processes, for SFT and for the PPM. Each writes a Hugging Face checkpoint with a manifest.

Section 3.4.2: every round's policy starts from the base model, every round's PPM from that round's policy.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.training.launcher import run_trainer
from store import files, shards
from store.layout import Run
from tasks.lib.concurrency import map_concurrently
from tasks.lib.phases import Phase
from tasks.lib.progress import Stage

SEED_STEP = 100_000  # between the seeds of trainings that are averaged


@dataclass(frozen=True, slots=True)
class Job:
    """A training process and its data."""

    module: str  # the trainer, such as models.training.sft
    out: str  # the checkpoint folder that it writes
    table: str  # of the rows
    rows: list[dict[str, Any]]

    @property
    def phase(self) -> str:
        """Name of the phase: the last part of the module's name."""
        return self.module.removeprefix("models.training.")


async def train(
    run: Run, round: int, job: Job, config: dict[str, Any], *, recipe: str, num_averaged: int = 1
) -> dict[str, int]:
    """Run a training process, or `num_averaged` of them with different seeds, whose weights are averaged.

    On the CPU (`config["device"] == "cpu"`) they run at the same time, each with one core or more, otherwise one after
    another. The data, the configuration and the log of a process are kept beside its checkpoint.
    """
    data = f"{job.out}.data.parquet"
    outs = [job.out] if num_averaged == 1 else [f"{job.out}.{number}" for number in range(1, num_averaged + 1)]
    on_cpu, num_cores = config["device"] == "cpu", len(os.sched_getaffinity(0))
    num_parallel = min(num_averaged, num_cores) if on_cpu else 1
    with Phase(run, round, job.phase, recipe=recipe) as phase:
        shards.write_rows(data, job.table, job.rows)
        config |= {"data": data, "extra": {"run": run.name, "round": round, "recipe": recipe}}
        if on_cpu:
            config["threads"] = config["threads"] or num_cores // num_parallel
        stage, steps = Stage(job.phase, round, 0), [0] * num_averaged

        async def run_one(number: int) -> None:
            async def report(step: int, num_steps: int, note: str) -> None:
                steps[number], stage.total = step, num_steps * num_averaged
                await stage.reach(sum(steps), note)

            out = outs[number]
            own = {"out": out, "seed": config["seed"] + SEED_STEP * number}
            files.write_bytes(f"{out}.config.json", json.dumps(config | own, indent=1).encode())
            await run_trainer(job.module, f"{out}.config.json", f"{out}.log", report, fork=on_cpu)

        try:
            await map_concurrently(run_one, range(num_averaged), limit=num_parallel)
        finally:
            for out in outs:
                shutil.rmtree(f"{out}.trainer", ignore_errors=True)  # the trainer's folder for states
        figures = [json.loads(files.read_bytes(f"{out}/manifest.json")).get("figures", {}) for out in outs]
        if num_averaged > 1:
            await asyncio.to_thread(_average, outs, job.out)
        phase.num_tokens = sum(int(each.get("num_tokens", 0)) for each in figures)
        peaks = sorted(int(each.get("peak_memory_bytes", 0)) for each in figures)
        phase.child_memory_bytes = sum(peaks[-num_parallel:])
        phase.counts = {"examples": len(job.rows), "steps": sum(steps)}
    return phase.counts


def _average(checkpoints: list[str], out: str) -> None:
    from models.training.averaging import average  # loads torch

    average(list(map(Path, checkpoints)), Path(out))
    for checkpoint in checkpoints:
        shutil.rmtree(checkpoint)


def manifest(run: Run, round: int, kind: str) -> str:
    """Return the path of a checkpoint's manifest. A checkpoint with a manifest is complete."""
    return f"{run.models(round, kind)}/manifest.json"
