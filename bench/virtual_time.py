"""An event loop whose clock jumps to the next timer, and two schedulers for it.

`Slots` starts a request as soon as a slot is free. `Lockstep`, for comparison, holds each request until every tree
waits. Simulated hours take seconds, with the same result each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")
BARRIERS = ("run", "score", "propose")  # the order in which Lockstep releases requests: a step ends before the next


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that never waits. It calls `on_idle` when nothing is ready and no timer runs; True: something is now."""

    def __init__(self, on_idle: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self._now = 0.0
        self._on_idle = on_idle

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and not self._scheduled and not self._on_idle():  # type: ignore[attr-defined]
            raise RuntimeError("every task waits, and nothing can wake one")
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class Slots:
    """Serves a fixed number of requests of each kind at the same time. Further requests wait in line."""

    def __init__(self, num_slots: dict[str, int]) -> None:
        self._gates = {kind: asyncio.Semaphore(count) for kind, count in num_slots.items()}

    async def pause(self, kind: str, seconds: float) -> None:
        async with self._gates[kind]:
            await asyncio.sleep(seconds)


class Lockstep:
    """Holds all requests until no tree can go on, then starts those of one kind and returns them together."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._held: dict[str, list[tuple[float, asyncio.Future[None]]]] = {kind: [] for kind in BARRIERS}
        self._batch: asyncio.Task[None] | None = None

    async def pause(self, kind: str, seconds: float) -> None:
        done = asyncio.get_running_loop().create_future()
        self._held[kind].append((seconds, done))
        await done

    def release(self) -> bool:
        """Start the held requests of one kind; return whether there were any."""
        for kind in BARRIERS:
            if self._held[kind]:
                batch, self._held[kind] = self._held[kind], []
                self._batch = asyncio.get_event_loop().create_task(self._serve(kind, batch))
                return True
        return False

    async def _serve(self, kind: str, batch: list[tuple[float, asyncio.Future[None]]]) -> None:
        await asyncio.gather(*(self._slots.pause(kind, seconds) for seconds, _ in batch))
        for _, done in batch:
            done.set_result(None)


def run_virtually(work: Coroutine[Any, Any, Result], loop: VirtualLoop) -> tuple[Result, float]:
    """Return the result of `work`, and the virtual seconds that it took."""
    try:
        return loop.run_until_complete(work), loop.time()
    finally:
        loop.close()
