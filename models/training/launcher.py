"""A training process: started, followed by the lines that it prints, and ended with the task.

On the CPU it is forked from a process that has imported torch and the trainers, seconds of work each time; where there
may be a GPU, which a fork could not use, it starts afresh.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from models.served.vllm_servers import stop_idle
from rstar.protocols import InfrastructureError, UserError

PRELOADED = ["__main__", "models.training.sft", "models.training.ppm"]
USER_ERROR = 2  # the exit code of a process that ends with a user's mistake


Tell = Callable[[int, int, str], Awaitable[None]]  # how many optimiser steps are done, of how many, and the loss


class TrainingError(InfrastructureError):
    """The training process died."""


async def run_trainer(module: str, config: str, log: str, tell: Tell, *, fork: bool = False) -> int:
    """Run a trainer to its end; return the number of optimiser steps."""
    last: dict[str, Any] = {}
    await asyncio.to_thread(stop_idle)  # what search left running holds the GPU's memory
    context = multiprocessing.get_context("forkserver") if fork else multiprocessing.get_context("spawn")
    context.set_forkserver_preload(PRELOADED)
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=be_trainer, args=(module, config, log, writer))
    starting = asyncio.create_task(asyncio.to_thread(_start, process))  # the first fork waits for the imports
    try:
        await asyncio.shield(starting)
        writer.close()
        async with lines_of(reader) as lines:
            async for line in lines:
                last = _said(line) or last
                if "step" in last:
                    note = f"loss {last['loss']:.3f}" if last.get("loss") else ""
                    await tell(int(last["step"]), int(last["of"]), note)
        await asyncio.to_thread(process.join)
    finally:
        await asyncio.wait([starting])  # a task that is cancelled now would leave it to run
        if process.is_alive():
            process.kill()
            process.join()
    if process.exitcode == USER_ERROR and "error" in last:
        raise UserError(last["error"])
    if process.exitcode != 0:
        reason = last.get("error", "no reason given")
        raise TrainingError(f"{module} ended with {process.exitcode}: {reason} (its whole log: {log})")
    return int(last.get("of", 0))


@asynccontextmanager
async def lines_of(pipe: Connection) -> AsyncIterator[asyncio.StreamReader]:
    lines = asyncio.StreamReader()
    file = os.fdopen(os.dup(pipe.fileno()), "rb", 0)
    pipe.close()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), file)
    try:
        yield lines
    finally:
        transport.close()


def be_trainer(module: str, config: str, log: str, out: Connection) -> None:
    """In the process: what the trainer prints goes to `out`, what it complains of to its log."""
    os.dup2(out.fileno(), 1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
    sys.argv = [module, "--config", config]
    importlib.import_module(module).main()


def _start(process: BaseProcess) -> None:
    """Start it deaf to Ctrl-C, as its fork server: that is for this process, which ends the others."""
    resource_tracker.ensure_running()  # where it starts only now, it hears Ctrl-C again when it has
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _said(line: bytes) -> dict[str, Any] | None:
    """Read one line of the trainer's: progress or its last error. Other libraries may print as well."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) and ("error" in said or {"step", "of"} <= said.keys()) else None
