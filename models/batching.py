"""Batches of the requests of all trees in flight, for a model in its own thread or for a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import torch

Request = TypeVar("Request")
Answer = TypeVar("Answer")

NUM_THREADS = torch.get_num_threads()  # read at import, because an engine's thread changes torch's default


@dataclass(slots=True)
class _Waiting(Generic[Request, Answer]):
    request: Request
    size: int
    length: int
    future: asyncio.Future[Answer]


class Batcher(Generic[Request, Answer]):
    """Awaits `work(requests)` for one batch after another.

    The sizes of a batch's requests sum to at most `max_size`; a larger request is a batch of its own. At most `at_once`
    batches run at a time. While they run, further requests gather, and form a batch when one of them ends. Each batch
    has the request that has waited longest and those closest to it in length, which keeps padding small. Cancelled
    requests are dropped. If `work` raises an error, every request of the batch gets it; if `work` returns an error in
    place of an answer, that request gets it.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Request]], Awaitable[Sequence[Answer | Exception]]],
        *,
        max_size: int,
        at_once: int = 1,
    ) -> None:
        self._work = work
        self._max_size = max_size
        self._waiting: list[_Waiting[Request, Answer]] = []
        self._at_once = at_once
        self._running: set[asyncio.Task[None]] = set()
        self.busy_seconds = 0.0
        self.num_batches = 0

    async def ask(self, request: Request, *, size: int = 1, length: int = 0) -> Answer:
        """Queue a request of `length` tokens and return its answer."""
        waiting = _Waiting(request, size, length, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        # A finished task stays in the set until its callback has run.
        if sum(not running.done() for running in self._running) < self._at_once:
            running = asyncio.create_task(self._run())
            self._running.add(running)
            running.add_done_callback(self._running.discard)
        return await waiting.future

    async def close(self) -> None:
        """Stop the running batches and cancel all waiting requests."""
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for waiting in self._waiting:
            waiting.future.cancel()

    async def _run(self) -> None:
        while self._waiting:
            for _ in range(3):  # trees that just got an answer can send their next request before the batch is closed
                await asyncio.sleep(0)
            if batch := self._take():
                await self._answer(batch)

    async def _answer(self, batch: Sequence[_Waiting[Request, Answer]]) -> None:
        began = time.perf_counter()
        answers: Sequence[Answer | Exception]
        try:
            answers = await self._work([waiting.request for waiting in batch])
            self.busy_seconds += time.perf_counter() - began
            self.num_batches += 1
        except Exception as error:
            answers = [error] * len(batch)
        except asyncio.CancelledError:
            for waiting in batch:
                waiting.future.cancel()
            raise
        for waiting, answer in zip(batch, answers, strict=True):
            if waiting.future.done():
                continue
            if isinstance(answer, Exception):
                waiting.future.set_exception(answer)
            else:
                waiting.future.set_result(answer)

    def _take(self) -> list[_Waiting[Request, Answer]]:
        self._waiting = [waiting for waiting in self._waiting if not waiting.future.cancelled()]
        batch: list[_Waiting[Request, Answer]] = []
        for waiting in sorted(self._waiting, key=lambda each: abs(each.length - self._waiting[0].length)):
            if batch and sum(each.size for each in batch) + waiting.size > self._max_size:
                break
            batch.append(waiting)
        taken = set(map(id, batch))
        self._waiting = [waiting for waiting in self._waiting if id(waiting) not in taken]
        return batch


class ThreadBatcher(Batcher[Request, Answer]):
    """A Batcher that calls a blocking `work` in its own thread.

    `threads` is the number of threads in which torch computes a batch on the CPU; 0: torch's default. Engines that run
    at once should not share cores, because a thread that waits for its core delays all threads of its batch.
    """

    def __init__(
        self, work: Callable[[Sequence[Request]], Sequence[Answer]], *, max_size: int, threads: int = 0
    ) -> None:
        self._thread = ThreadPoolExecutor(1, initializer=partial(torch.set_num_threads, threads or NUM_THREADS))

        async def computed(requests: Sequence[Request]) -> Sequence[Answer]:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, requests)

        super().__init__(computed, max_size=max_size)

    async def close(self) -> None:
        await super().close()
        self._thread.shutdown(wait=True)
