"""A training process that fails says why in one line, and none outlives its task."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import time
from multiprocessing.context import SpawnProcess
from pathlib import Path

import polars as pl
import pytest

from models.training.launcher import TrainingError, run_trainer
from rstar.protocols import UserError


def config(tmp_path: Path, **values: object) -> str:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"data": "none.parquet", "base": str(tmp_path), "out": str(tmp_path / "out")} | values))
    return str(file)


async def silent(step: int, of: int, note: str) -> None: ...


@pytest.mark.parametrize("fork", [False, True])
def test_a_user_error_in_training_is_a_user_error_here(tmp_path: Path, fork: bool) -> None:
    data, log = str(tmp_path / "pairs.parquet"), str(tmp_path / "log")
    pl.DataFrame({"question": []}).write_parquet(data)
    wrong = config(tmp_path, data=data, loss="mse")
    with pytest.raises(UserError, match=r"ppm\.loss: got 'mse'") as caught:
        asyncio.run(run_trainer("models.training.ppm", wrong, log, silent, fork=fork))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fork", [False, True])
def test_a_trainer_that_dies_is_an_infrastructure_error_that_names_its_log(tmp_path: Path, fork: bool) -> None:
    log = str(tmp_path / "log")
    with pytest.raises(TrainingError, match="log"):
        asyncio.run(run_trainer("models.no_such_trainer", config(tmp_path), log, silent, fork=fork))
    assert "no_such_trainer" in Path(log).read_text()


@pytest.mark.parametrize("fork", [False, True])
def test_a_trainer_resolves_paths_in_its_callers_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork: bool
) -> None:
    (tmp_path / "here.json").write_text(json.dumps({"no_such_key": 1}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"here\.json: unknown training key 'no_such_key'"):
        asyncio.run(run_trainer("models.training.ppm", "here.json", "log", silent, fork=fork))
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
    task = asyncio.create_task(run_trainer("models.training.ppm", config(tmp_path), log, silent))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.6)
    assert not multiprocessing.active_children()


MASKED = """
import multiprocessing, signal, sys
from models.training.launcher import _start

def masks_sigint():
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])

def child(pipe):
    pipe.send(masks_sigint())

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    for _ in range(2):
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=child, args=(writer,))
        _start(process)
        print(reader.recv())
        process.join()
    print(masks_sigint())
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_trainer_ignores_ctrl_c_from_its_start(tmp_path: Path, method: str) -> None:
    script = tmp_path / "masked.py"
    script.write_text(MASKED)
    command = [sys.executable, str(script), method]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
    assert done.stdout.split() == ["True", "True", "False"]
