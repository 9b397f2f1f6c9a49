"""Gathers the requests of all trees in flight into batches for a model that runs in a thread of its own."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Waiting(Generic[Request, Answer]):
    request: Request
    size: int
    future: asyncio.Future[Answer]


class Batcher(Generic[Request, Answer]):
    """Runs `work(requests)` on batches of at most `max_size` (the sum of the requests' sizes), one batch at a time.

    A batch takes what is waiting when the last one ends: while the model works, the trees' next requests gather.
    Cancelled requests are dropped. An error of `work` goes to every request of its batch.
    """

    def __init__(self, work: Callable[[Sequence[Request]], Sequence[Answer]], *, max_size: int) -> None:
        self._work = work
        self._max_size = max_size
        self._waiting: deque[_Waiting[Request, Answer]] = deque()
        self._thread = ThreadPoolExecutor(1)
        self._running: asyncio.Task[None] | None = None
        self.busy_seconds = 0.0
        self.num_batches = 0

    async def ask(self, request: Request, *, size: int = 1) -> Answer:
        """Put a request in line and return its answer."""
        waiting = _Waiting(request, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await waiting.future

    async def close(self) -> None:
        if self._running is not None and not self._running.done():
            self._running.cancel()
        self._thread.shutdown(wait=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            for _ in range(3):  # let the trees that were just answered ask again before the batch is closed
                await asyncio.sleep(0)
            batch = self._take()
            if not batch:
                continue
            began = time.perf_counter()
            try:
                answers = await loop.run_in_executor(self._thread, self._work, [waiting.request for waiting in batch])
            except Exception as error:
                for waiting in batch:
                    if not waiting.future.done():
                        waiting.future.set_exception(error)
                continue
            self.busy_seconds += time.perf_counter() - began
            self.num_batches += 1
            for waiting, answer in zip(batch, answers, strict=True):
                if not waiting.future.done():
                    waiting.future.set_result(answer)

    def _take(self) -> list[_Waiting[Request, Answer]]:
        batch: list[_Waiting[Request, Answer]] = []
        size = 0
        while self._waiting and (not batch or size + self._waiting[0].size <= self._max_size):
            waiting = self._waiting.popleft()
            if not waiting.future.cancelled():
                batch.append(waiting)
                size += waiting.size
        return batch
