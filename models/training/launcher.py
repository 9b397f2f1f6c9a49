"""Training processes: started, followed by the lines that they print, and ended with the task.

A training on the CPU is forked from a server process that has imported torch and the trainers, which takes seconds. A
training on a GPU gets a fresh process, because CUDA does not work in a forked one.
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
USER_ERROR = 2  # the exit status of `models.training.process.run` for a UserError

Tell = Callable[[int, int, str], Awaitable[None]]  # optimizer steps done, of how many, and the loss


class TrainingError(InfrastructureError):
    """The training process died."""


async def run_trainer(module: str, config: str, log: str, tell: Tell, *, fork: bool = False) -> int:
    """Run the trainer `module` with the file `config` to its end; return the number of optimizer steps.

    What it writes to stderr goes to the file `log`. Raises UserError or TrainingError if the trainer fails.
    """
    last: dict[str, Any] = {}
    await asyncio.to_thread(stop_idle)  # idle servers of the search hold the GPU's memory
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
                last = _message(line) or last
                if "step" in last:
                    note = f"loss {last['loss']:.3f}" if last.get("loss") else ""
                    await tell(int(last["step"]), int(last["of"]), note)
        await asyncio.to_thread(process.join)
    finally:
        await asyncio.wait([starting])  # otherwise a cancelled task would leave a starting process behind
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
    """Yield a reader of the lines that arrive in `pipe`, which is closed."""
    lines = asyncio.StreamReader()
    file = os.fdopen(os.dup(pipe.fileno()), "rb", 0)
    pipe.close()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), file)
    try:
        yield lines
    finally:
        transport.close()


def be_trainer(module: str, config: str, log: str, out: Connection) -> None:
    """Run the trainer in this process, with stdout in `out` and stderr in the file `log`."""
    os.dup2(out.fileno(), 1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
    sys.argv = [module, "--config", config]
    importlib.import_module(module).main()


def _start(process: BaseProcess) -> None:
    """Start a process that ignores Ctrl-C, and so does its fork server: the parent gets it and ends the others."""
    resource_tracker.ensure_running()  # starting the tracker later would unblock SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _message(line: bytes) -> dict[str, Any] | None:
    """Parse a line with the trainer's progress or error. Other libraries print too; their lines give None."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    known = isinstance(message, dict) and ("error" in message or {"step", "of"} <= message.keys())
    return message if known else None
