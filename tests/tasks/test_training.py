"""Averaged trainings, retries, phases, progress and the choice of training data."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import torch
from prefect.states import Failed
from safetensors.torch import load_file, save_file

import tasks.lib.training
from models.checkpoints import new_checkpoint
from models.training.launcher import Tell, TrainingError
from rstar.protocols import PolicyError, UserError
from store import shards
from store.layout import Run
from tasks.lib.phases import Phase, finished
from tasks.lib.problems import synthetic_name
from tasks.lib.progress import Progress, Stage, listening
from tasks.lib.retries import infrastructure_failed
from tasks.lib.training import Job, train
from tasks.sft import training_set


@pytest.mark.parametrize(
    ("failure", "again"),
    [
        (PolicyError("gone"), True),
        (TrainingError("died"), True),
        (UserError("typo"), False),
        (ValueError("bug"), False),
    ],
)
def test_only_infrastructure_errors_are_retried(failure: Exception, again: bool) -> None:
    assert infrastructure_failed(None, None, Failed(data=failure)) is again


def test_a_phase_is_finished_if_its_row_and_its_output_files_exist(tmp_path: Path) -> None:
    run, output = Run(tmp_path), tmp_path / "output"
    with pytest.raises(ZeroDivisionError), Phase(run, 1, "pairs", recipe="h"):
        raise ZeroDivisionError
    assert finished(run, 1, "pairs") is None
    output.touch()
    with Phase(run, 1, "pairs", recipe="h") as phase:
        phase.counts = {"pairs": 3}
    assert finished(run, 1, "pairs", str(output)) == {"pairs": 3}
    output.unlink()
    assert finished(run, 1, "pairs", str(output)) is None


async def test_progress_reaches_listeners_only_while_they_listen() -> None:
    updates: list[Progress] = []
    with listening(updates.append):
        stage = Stage("search", 2, 3)
        await stage.advance(note="1 solved")
    await stage.advance()
    assert updates == [Progress("search", 2, 0, 3), Progress("search", 2, 1, 3, "1 solved")]


def test_earlier_choices_count_once_and_not_for_a_synthetic_problem_in_doubt(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    base = {"run": "r", "recipe": "h", "choice": "verified", "rank": 0, "node": "0:1", "correct": True, "mean_q": 1.0}
    base |= {"min_q": 1.0, "num_steps": 1, "num_tokens": 3, "wrong_step": None}

    def problem(id: str, synthetic: bool) -> dict[str, object]:
        return {"id": id, "question": id, "answer": "1", "level": "gsm", "source": "test", "synthetic": synthetic}

    def write_choices(round: int, *choices: tuple[str, str]) -> None:
        rows = [base | {"round": round, "problem_id": id, "question": id, "response": text} for id, text in choices]
        shards.write_rows(run.sft(round), "sft", rows)

    shards.write_rows(run.problems("train"), "problems", [problem("old", False)])
    shards.write_rows(run.problems(synthetic_name(2)), "problems", [problem("sure", True), problem("doubted", True)])
    write_choices(1, ("old", "a"))
    write_choices(2, ("old", "a"), ("old", "b"), ("sure", "c"), ("doubted", "d"))
    write_choices(3, ("sure", "e"))
    got = [(row["round"], row["problem_id"], row["response"]) for row in training_set(run, 3, [1, 2, 3])]
    assert got == [(2, "old", "a"), (2, "old", "b"), (2, "sure", "c"), (3, "sure", "e")]
    assert [row["response"] for row in training_set(run, 3, [3])] == ["e"]


class Trainers:
    """Replaces training processes. Each takes three steps and writes its seed as its only weight. One may fail."""

    def __init__(self) -> None:
        self.configs: list[dict[str, object]] = []
        self.forked: list[bool] = []
        self.num_running = self.max_running = 0
        self.failing_seed: int | None = None

    async def run(self, module: str, config: str, log: str, tell: Tell, *, fork: bool) -> int:
        own = json.loads(Path(config).read_text())
        self.configs.append(own)
        self.forked.append(fork)
        self.num_running += 1
        self.max_running = max(self.max_running, self.num_running)
        try:
            for step in (1, 2, 3):
                await asyncio.sleep(0.01)
                await tell(step, 3, "")
                if own["seed"] == self.failing_seed:
                    raise TrainingError("died")
        finally:
            self.num_running -= 1
        figures = {"num_tokens": 10, "peak_memory_bytes": 2**50}
        with new_checkpoint(Path(own["out"]), figures=figures) as folder:
            save_file({"w": torch.tensor([float(own["seed"])])}, folder / "model.safetensors")
        return 3


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> Trainers:
    trainers = Trainers()
    monkeypatch.setattr(tasks.lib.training, "run_trainer", trainers.run)
    monkeypatch.setattr(tasks.lib.training.os, "sched_getaffinity", lambda _: {0, 1})
    return trainers


async def trained(tmp_path: Path, *, num_averaged: int, device: str = "cpu", threads: int = 0) -> dict[str, int]:
    run = Run(str(tmp_path))
    config = {"device": device, "threads": threads, "seed": 5}
    job = Job("models.training.sft", run.models(1, "policy"), "sft", [])
    return await train(run, 1, job, config, recipe="h", num_averaged=num_averaged)


@pytest.mark.parametrize(
    ("num_averaged", "device", "num_parallel", "threads"),
    [(1, "cpu", 1, 2), (2, "cpu", 2, 1), (5, "cpu", 2, 1), (2, "", 1, 0)],
)
async def test_averaged_trainings_share_the_cores_and_give_the_mean_of_their_weights(
    tmp_path: Path, trainers: Trainers, num_averaged: int, device: str, num_parallel: int, threads: int
) -> None:
    updates: list[Progress] = []
    with listening(updates.append):
        assert await trained(tmp_path, num_averaged=num_averaged, device=device) == {
            "examples": 0,
            "steps": 3 * num_averaged,
        }
    seeds = [int(str(each["seed"])) for each in trainers.configs]
    assert len(set(seeds)) == num_averaged and trainers.max_running == num_parallel
    assert {each["threads"] for each in trainers.configs} == {threads}
    assert set(trainers.forked) == {device == "cpu"}
    folder = Path(Run(str(tmp_path)).models(1, "policy"))
    assert load_file(folder / "model.safetensors")["w"].item() == sum(seeds) / num_averaged
    assert [each for each in folder.parent.iterdir() if each.is_dir()] == [folder]
    [row] = shards.read_rows(Run(str(tmp_path)).rounds(1, "sft"), "rounds")
    assert row["num_tokens"] == 10 * num_averaged and row["peak_memory_bytes"] == num_parallel * 2**50
    done = [update.done for update in updates if update.total]
    assert (
        done == sorted(done)
        and [update for update in updates if update.total and update.done == update.total] == updates[-1:]
    )
    assert updates[-1] == Progress("sft", 1, 3 * num_averaged, 3 * num_averaged)


async def test_if_one_training_dies_the_phase_can_be_repeated(tmp_path: Path, trainers: Trainers) -> None:
    run = Run(str(tmp_path))
    trainers.failing_seed = 5 + tasks.lib.training.SEED_STEP
    with pytest.raises(TrainingError, match="died"):
        await trained(tmp_path, num_averaged=2)
    assert trainers.num_running == 0  # the other one was cancelled
    assert finished(run, 1, "sft") is None and not Path(run.models(1, "policy")).exists()
    (Path(run.models(1, "policy") + ".1") / "old").mkdir(parents=True)
    trainers.failing_seed = None
    await trained(tmp_path, num_averaged=2)
    assert finished(run, 1, "sft") is not None
    assert not (Path(run.models(1, "policy")) / "old").exists()
