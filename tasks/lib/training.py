"""What SFT and PPM training share: a process of its own that writes a Hugging Face checkpoint and a manifest.

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

SEEDS_APART = 100_000  # of the trainings of one policy


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
