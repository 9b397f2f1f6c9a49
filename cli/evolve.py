"""`rstar evolve` and `rstar demo`: a run with progress bars, the result tables at its end, and a clean stop."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import time
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import FrameType

import typer

from cli.announce import announce_sandbox
from cli.console import console, errors, watching
from cli.doctor import prefect_server
from cli.runs import RUNS
from flows import plans
from flows.evolution import evolution
from flows.recipe import Recipe, load_recipe
from report.tables import final_tables
from rstar.protocols import UserError

NUM_TABLES = 6  # the first ones of the report


def run_recipe(recipe: str, out: str | None, overrides: list[str]) -> None:
    """Run a recipe in the folder `out`. If a signal stops it, print the command that resumes it and exit with 130."""
    checked = load_recipe(recipe, overrides)
    root = out or str(RUNS / checked.run.name)
    if "://" in root:
        raise UserError(f"--out {root}: models are trained in a local folder; give one")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C, so that the exit stops Prefect's server
    try:
        evolve(checked, root)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # another Ctrl-C would interrupt the stop of Prefect's server
        sets = [part for override in overrides for part in ("--set", override)]
        command = shlex.join(["rstar", "evolve", recipe, "--out", root, *sets])
        errors.print(f"stopped; resume with: {command}", markup=False)
        raise typer.Exit(130) from None


def evolve(recipe: Recipe, root: str) -> None:
    """Run the flow in this process, with the server of PREFECT_API_URL or a temporary one."""
    start = time.monotonic()
    if (server := prefect_server()).advice and os.environ.get("PREFECT_API_URL"):
        raise UserError(f"PREFECT_API_URL: {server.state}; {server.advice}")
    plans.base_model(recipe)  # a missing base model ends the command before the search, not after it
    folder = str(Path(root).absolute())
    console.print(f"{len(recipe.rounds)} rounds in {root}, recipe {recipe.hash}", markup=False)
    announce_sandbox(recipe.sandbox.provider, console)
    with watching(len(recipe.rounds)):
        report = run_until_stopped(evolution(recipe, folder))
    for table in final_tables(folder)[:NUM_TABLES]:
        console.print(table)
    console.print(f"done in {(time.monotonic() - start) / 60:.1f} minutes; report: {report}", markup=False)


def run_until_stopped(work: Coroutine[object, object, str]) -> str:
    """Run `work` in its own thread. The first SIGINT or SIGTERM cancels it; later ones do nothing.

    In the main thread, Prefect would handle SIGTERM: it raises an exception at an arbitrary point of the event loop,
    which can lose a callback and then wait for ever.

    Raises:
        KeyboardInterrupt: a signal cancelled `work`.
    """
    stopped = False
    running: Future[asyncio.Task[object]] = Future()

    async def begin() -> str:
        task = asyncio.current_task()
        assert task is not None
        running.set_result(task)
        return await work

    def cancel(running: Future[asyncio.Task[object]]) -> None:
        task = running.result()
        with suppress(RuntimeError):  # `work` has just ended, and its loop is closed
            task.get_loop().call_soon_threadsafe(task.cancel)

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            running.add_done_callback(cancel)
            console.print("stopping; finished work is kept")

    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        with ThreadPoolExecutor(1, "evolution", block_interrupts) as threads:
            return threads.submit(asyncio.run, begin()).result()
    except BaseException:
        if stopped:  # whatever the flow raised when it was cancelled
            raise KeyboardInterrupt from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def block_interrupts() -> None:
    """Block SIGINT in this thread and in the processes that it starts, such as Prefect's temporary server.

    A terminal sends Ctrl-C to every process in the foreground. Only the main thread may react: it stops the run, which
    still needs the server to record how it ended.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
