"""A training process that fails says why in one line, and what a phase made is known by its files."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest
from prefect.states import Failed

from rstar.protocols import PolicyError, UserError
from store import shards
from store.layout import Run
from tasks.phases import Phase, finished
from tasks.problems import synthetic_name
from tasks.progress import Progress, Stage, listening
from tasks.retries import infrastructure_failed
from tasks.trainers import TrainingError, run_trainer
from tasks.training import training_set


def config(tmp_path: Path, **values: object) -> str:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"data": "none.parquet", "base": str(tmp_path), "out": str(tmp_path / "out")} | values))
    return str(file)


@pytest.mark.parametrize("fork", [False, True])
def test_a_users_mistake_in_training_is_the_users_mistake_here(tmp_path: Path, fork: bool) -> None:
    data, log = str(tmp_path / "pairs.parquet"), str(tmp_path / "log")
    shards.write_rows(data, "pairs", [])
    wrong = config(tmp_path, data=data, loss="mse")
    with pytest.raises(UserError) as caught:
        asyncio.run(run_trainer("models.train_ppm", wrong, log, Stage("ppm", 1, 0), fork=fork))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fork", [False, True])
def test_a_trainer_that_dies_is_an_infrastructure_error_that_names_its_log(tmp_path: Path, fork: bool) -> None:
    log = str(tmp_path / "log")
    with pytest.raises(TrainingError, match="log"):
        asyncio.run(run_trainer("models.no_such_trainer", config(tmp_path), log, Stage("sft", 1, 0), fork=fork))
    assert "no_such_trainer" in Path(log).read_text()


@pytest.mark.parametrize("fork", [False, True])
def test_a_trainer_has_its_paths_where_its_caller_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork: bool
) -> None:
    (tmp_path / "here.json").write_text(json.dumps({"no_such_key": 1}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"here\.json: unknown training key 'no_such_key'"):
        asyncio.run(run_trainer("models.train_ppm", "here.json", "log", Stage("ppm", 1, 0), fork=fork))
    assert (tmp_path / "log").exists()


async def test_a_task_cancelled_while_its_trainer_starts_leaves_none_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = SpawnProcess.start

    def slow_start(process: SpawnProcess) -> None:
        time.sleep(0.5)
        start(process)

    monkeypatch.setattr(SpawnProcess, "start", slow_start)
    log = str(tmp_path / "log")
    task = asyncio.create_task(run_trainer("models.train_ppm", config(tmp_path), log, Stage("ppm", 1, 0)))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.6)
    assert not multiprocessing.active_children()


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
