"""A training process that fails says why in one line, and what a phase made is known by its files."""

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
def test_only_infrastructure_is_retried(failure: Exception, again: bool) -> None:
    assert infrastructure_failed(None, None, Failed(data=failure)) is again


def test_a_phase_is_finished_once_its_row_and_products_are_there(tmp_path: Path) -> None:
    run, product = Run(tmp_path), tmp_path / "product"
    with pytest.raises(ZeroDivisionError), Phase(run, 1, "pairs", recipe="h"):
        raise ZeroDivisionError
    assert finished(run, 1, "pairs") is None
    product.touch()
    with Phase(run, 1, "pairs", recipe="h") as phase:
        phase.counts = {"pairs": 3}
    assert finished(run, 1, "pairs", str(product)) == {"pairs": 3}
    product.unlink()
    assert finished(run, 1, "pairs", str(product)) is None


async def test_progress_reaches_its_listeners_and_no_others() -> None:
    heard: list[Progress] = []
    with listening(heard.append):
        stage = Stage("search", 2, 3)
        await stage.advance(note="1 solved")
    await stage.advance()
    assert heard == [Progress("search", 2, 0, 3), Progress("search", 2, 1, 3, "1 solved")]


def test_older_choices_count_once_and_not_of_a_synthetic_problem_that_is_in_doubt(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    base = {"run": "r", "recipe": "h", "choice": "verified", "rank": 0, "node": "0:1", "correct": True, "mean_q": 1.0}
    base |= {"min_q": 1.0, "num_steps": 1, "num_tokens": 3, "wrong_step": None}

    def problem(id: str, synthetic: bool) -> dict[str, object]:
        return {"id": id, "question": id, "answer": "1", "level": "gsm", "source": "test", "synthetic": synthetic}

    def chosen(round: int, *made: tuple[str, str]) -> None:
        rows = [base | {"round": round, "problem_id": id, "question": id, "response": text} for id, text in made]
        shards.write_rows(run.sft(round), "sft", rows)

    shards.write_rows(run.problems("train"), "problems", [problem("old", False)])
    shards.write_rows(run.problems(synthetic_name(2)), "problems", [problem("sure", True), problem("doubted", True)])
    chosen(1, ("old", "a"))
    chosen(2, ("old", "a"), ("old", "b"), ("sure", "c"), ("doubted", "d"))
    chosen(3, ("sure", "e"))
    got = [(row["round"], row["problem_id"], row["response"]) for row in training_set(run, 3, [1, 2, 3])]
    assert got == [(2, "old", "a"), (2, "old", "b"), (2, "sure", "c"), (3, "sure", "e")]
    assert [row["response"] for row in training_set(run, 3, [3])] == ["e"]


class Trainers:
    """In the place of training processes: each writes its seed as the one weight, takes three steps, and may fail."""

    def __init__(self) -> None:
        self.configs: list[dict[str, object]] = []
        self.forked: list[bool] = []
        self.now = self.most_at_once = 0
        self.failing_seed: int | None = None

    async def run(self, module: str, config: str, log: str, tell: Tell, *, fork: bool) -> int:
        given = json.loads(Path(config).read_text())
        self.configs.append(given)
        self.forked.append(fork)
        self.now += 1
        self.most_at_once = max(self.most_at_once, self.now)
        try:
            for step in (1, 2, 3):
                await asyncio.sleep(0.01)
                await tell(step, 3, "")
                if given["seed"] == self.failing_seed:
                    raise TrainingError("died")
        finally:
            self.now -= 1
        figures = {"num_tokens": 10, "peak_memory_bytes": 2**50}
        with new_checkpoint(Path(given["out"]), figures=figures) as folder:
            save_file({"w": torch.tensor([float(given["seed"])])}, folder / "model.safetensors")
        return 3


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> Trainers:
    made = Trainers()
    monkeypatch.setattr(tasks.lib.training, "run_trainer", made.run)
    monkeypatch.setattr(tasks.lib.training.os, "sched_getaffinity", lambda _: {0, 1})
    return made


async def trained(tmp_path: Path, *, num_averaged: int, device: str = "cpu", threads: int = 0) -> dict[str, int]:
    run = Run(str(tmp_path))
    config = {"device": device, "threads": threads, "seed": 5}
    job = Job("models.training.sft", run.models(1, "policy"), "sft", [])
    return await train(run, 1, job, config, recipe="h", num_averaged=num_averaged)


@pytest.mark.parametrize(
    ("num_averaged", "device", "at_once", "threads"),
    [(1, "cpu", 1, 2), (2, "cpu", 2, 1), (5, "cpu", 2, 1), (2, "", 1, 0)],
)
async def test_trainings_of_one_policy_share_the_cores_and_end_in_the_mean_of_their_weights(
    tmp_path: Path, trainers: Trainers, num_averaged: int, device: str, at_once: int, threads: int
) -> None:
    heard: list[Progress] = []
    with listening(heard.append):
        assert await trained(tmp_path, num_averaged=num_averaged, device=device) == {
            "examples": 0,
            "steps": 3 * num_averaged,
        }
    seeds = [int(str(each["seed"])) for each in trainers.configs]
    assert len(set(seeds)) == num_averaged and trainers.most_at_once == at_once
    assert {each["threads"] for each in trainers.configs} == {threads}
    assert set(trainers.forked) == {device == "cpu"}
    folder = Path(Run(str(tmp_path)).models(1, "policy"))
    assert load_file(folder / "model.safetensors")["w"].item() == sum(seeds) / num_averaged
    assert [each for each in folder.parent.iterdir() if each.is_dir()] == [folder]
    [row] = shards.read_rows(Run(str(tmp_path)).rounds(1, "sft"), "rounds")
    assert row["num_tokens"] == 10 * num_averaged and row["peak_memory_bytes"] == at_once * 2**50
    done = [move.done for move in heard if move.total]
    assert done == sorted(done) and [move for move in heard if move.total and move.done == move.total] == heard[-1:]
    assert heard[-1] == Progress("sft", 1, 3 * num_averaged, 3 * num_averaged)


async def test_where_one_training_dies_the_phase_is_done_again_over_what_was_left(
    tmp_path: Path, trainers: Trainers
) -> None:
    run = Run(str(tmp_path))
    trainers.failing_seed = 5 + tasks.lib.training.SEEDS_APART
    with pytest.raises(TrainingError, match="died"):
        await trained(tmp_path, num_averaged=2)
    assert trainers.now == 0  # the other one was ended
    assert finished(run, 1, "sft") is None and not Path(run.models(1, "policy")).exists()
    (Path(run.models(1, "policy") + ".1") / "old").mkdir(parents=True)
    trainers.failing_seed = None
    await trained(tmp_path, num_averaged=2)
    assert finished(run, 1, "sft") is not None
    assert not (Path(run.models(1, "policy")) / "old").exists()
