"""Several engines of one checkpoint, each a process of its own with its share of the CPU's cores.

The operations of a tiny model are too small to be spread over cores: two engines of a core each do more than one of two
cores, and two in one process would wait for Python's lock (docs/results.md). A problem stays with one engine, which
holds its prefixes.
"""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AsyncExitStack
from functools import partial
from hashlib import blake2b
from multiprocessing.context import BaseContext
from statistics import mean
from typing import Any, ClassVar, Self

from models.batching import Batcher
from models.leash import PR_SET_PDEATHSIG
from rstar.protocols import InfrastructureError, Proposal

#: What the process that others are forked from has imported.
PRELOADED = ["__main__", "models.train_sft", "models.train_ppm", "models.engine", "models.scorer"]
Call = tuple[str, tuple[Any, ...], dict[str, Any]]  # method, arguments and named ones
_serving: tuple[asyncio.AbstractEventLoop, Any] | None = None  # in an engine's process


def process_context(*, fork: bool) -> BaseContext:
    """How to start a process that needs torch: forked from one that has imported it, or, for a GPU, afresh."""
    context = multiprocessing.get_context("forkserver" if fork else "spawn")
    context.set_forkserver_preload(PRELOADED)
    return context


class EngineProcesses:
    """A Policy or a StepScorer, as what `make` returns is; `async with` it. `fork` where there is no GPU in use."""

    _open: ClassVar[set[EngineProcesses]] = set()
    peak_bytes: ClassVar[int] = 0  # the most that all of them had at once, each with what it shares

    def __init__(self, make: Callable[[], Any], num_engines: int, *, max_batch: int, fork: bool) -> None:
        context = process_context(fork=fork)
        self._make, self._threads = make, max(1, len(os.sched_getaffinity(0)) // num_engines)
        self._pools = [ProcessPoolExecutor(1, context) for _ in range(num_engines)]
        self._batchers: list[Batcher[Call, Any]] = [
            Batcher(partial(self._ask, number), max_size=max_batch) for number in range(num_engines)
        ]
        self._metrics: list[dict[str, float]] = [{} for _ in range(num_engines)]
        self._bytes = [0] * num_engines

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for pool in self._pools:
                stack.callback(pool.shutdown, cancel_futures=True)
            begun = [asyncio.wrap_future(pool.submit(_begin, self._make, self._threads)) for pool in self._pools]
            self._metrics = list(await asyncio.gather(*begun))
            self._open.add(self)
            stack.callback(self._open.discard, self)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        async with self._stack:
            for batcher in self._batchers:
                await batcher.close()

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        """See `rstar.protocols.Policy`."""
        options = {"num_candidates": num_candidates, "seed": seed}
        return await self._call("propose", question, prefix, num_candidates, **options)

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        """See `rstar.protocols.StepScorer`."""
        return await self._call("score", question, prefix, len(candidates), candidates)

    async def _call(
        self, method: str, question: str, prefix: Sequence[str], size: int, *rest: Any, **options: Any
    ) -> Any:
        batcher = self._batchers[int.from_bytes(blake2b(question.encode()).digest()) % len(self._batchers)]
        call = (method, (question, tuple(prefix), *rest), options)
        return await batcher.ask(call, size=size, length=len(question) + sum(map(len, prefix)))

    def metrics(self) -> dict[str, float]:
        """The sums of the engines' metrics; of the seconds that they were busy the mean."""
        sums = {name: sum(each[name] for each in self._metrics) for name in self._metrics[0]}
        return sums | {"busy_seconds": mean(each["busy_seconds"] for each in self._metrics)}

    def _ask(self, number: int, calls: Sequence[Call]) -> list[Any]:
        """In a batcher's thread: have the engine's process answer."""
        try:
            told = self._pools[number].submit(_answers, list(calls)).result()
        except BrokenProcessPool as error:
            raise InfrastructureError(
                "an engine's process died; the log of the system says whether memory ran out"
            ) from error
        answers, self._metrics[number], self._bytes[number] = told
        EngineProcesses.peak_bytes = max(self.peak_bytes, sum(sum(each._bytes) for each in list(self._open)))
        return answers


def _begin(make: Callable[[], Any], threads: int) -> dict[str, float]:
    """In the process: load the engine. Who asks may be stopped by Ctrl-C or killed; this process ends with it."""
    import torch

    global _serving
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    torch.set_num_threads(threads)
    _serving = asyncio.new_event_loop(), make()
    return _serving[1].metrics()


def _answers(calls: Sequence[Call]) -> tuple[list[Any], dict[str, float], int]:
    """In the process: answer calls together, with the engine's metrics and the process's peak of memory in bytes."""
    assert _serving is not None
    loop, engine = _serving

    async def together() -> list[Any]:
        return await asyncio.gather(*(getattr(engine, method)(*given, **named) for method, given, named in calls))

    answers = loop.run_until_complete(together())
    return answers, engine.metrics(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
