"""An evolution from the command line: progress bars while it runs, the round's table after each round."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import FrameType

from cli.console import announce_sandbox, console, watching
from cli.doctor import prefect_server
from flows import plans
from flows.evolution import evolution
from flows.recipe import Recipe
from report.tables import final_tables
from rstar.protocols import UserError

NUM_TABLES = 6  # the report has the others


def evolve_here(recipe: Recipe, root: str) -> None:
    """Run the flow in this process, against PREFECT_API_URL's server or a temporary one."""
    start = time.monotonic()
    if (server := prefect_server()).advice and os.environ.get("PREFECT_API_URL"):
        raise UserError(f"PREFECT_API_URL: {server.state}; {server.advice}")
    plans.base_model(recipe)  # what is missing is better told before the search than after it
    place = str(Path(root).absolute())
    console.print(f"{len(recipe.rounds)} rounds in {root}, recipe {recipe.hash}", markup=False)
    announce_sandbox(recipe.sandbox.provider, console)
    with watching(len(recipe.rounds)):
        report = run_until_stopped(evolution(recipe, place))
    for table in final_tables(place)[:NUM_TABLES]:
        console.print(table)
    console.print(f"done in {(time.monotonic() - start) / 60:.1f} minutes; report: {report}", markup=False)


def run_until_stopped(work: Coroutine[object, object, str]) -> str:
    """Run `work` in a thread of its own; the first SIGINT or SIGTERM cancels it, later ones change nothing.

    In the main thread Prefect would take SIGTERM: it raises wherever the event loop happens to be, and a loop that lost
    one of its callbacks so may wait for ever.

    Raises:
        KeyboardInterrupt: `work` was cancelled by a signal.
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
        with suppress(RuntimeError):  # the loop is closed: it ended a moment ago
            task.get_loop().call_soon_threadsafe(task.cancel)

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            running.add_done_callback(cancel)
            console.print("stopping: what is done is kept")

    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        with ThreadPoolExecutor(1, "evolution", block_interrupts) as threads:
            return threads.submit(asyncio.run, begin()).result()
    except BaseException:
        if stopped:  # as CancelledError, or whatever the flow made of it
            raise KeyboardInterrupt from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def block_interrupts() -> None:
    """Have the processes that this thread starts ignore Ctrl-C, Prefect's temporary server among them.

    A terminal sends Ctrl-C to all its foreground processes. The main thread hears it and stops the run, which still has
    to tell the server how it ended; children inherit the mask of the thread that starts them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
