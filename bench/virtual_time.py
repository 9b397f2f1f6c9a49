"""An event loop whose clock jumps to the next timer: hours of waiting in seconds, the same each time.

And two schedulers of the same requests in it: ours, where a request goes to a free slot when it is made, and lockstep,
for comparison only, where all trees wait at each step for the slowest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")
BARRIERS = ("run", "score", "propose")  # the order in which lockstep lets requests go: a step's end before the next


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop without waiting; `at_rest` is called where nothing can go on, and says whether it changed that."""

    def __init__(self, at_rest: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self._now = 0.0
        self._at_rest = at_rest

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and not self._scheduled and not self._at_rest():  # type: ignore[attr-defined]
            raise RuntimeError("everything waits for ever")
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class Slots:
    """So many requests of each kind are served at once, the others wait in line."""

    def __init__(self, num_slots: dict[str, int]) -> None:
        self._gates = {kind: asyncio.Semaphore(count) for kind, count in num_slots.items()}
        self.busy_seconds = dict.fromkeys(num_slots, 0.0)

    async def pause(self, kind: str, seconds: float) -> None:
        async with self._gates[kind]:
            await asyncio.sleep(seconds)
            self.busy_seconds[kind] += seconds


class Lockstep:
    """One barrier a phase: requests are held until no tree can go on, then go together, and return together."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._held: dict[str, list[tuple[float, asyncio.Future[None]]]] = {kind: [] for kind in BARRIERS}
        self._batch: asyncio.Task[None] | None = None

    async def pause(self, kind: str, seconds: float) -> None:
        done = asyncio.get_running_loop().create_future()
        self._held[kind].append((seconds, done))
        await done

    def release(self) -> bool:
        """Let the requests of one kind go; says whether there were any."""
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
    """The result of `work`, and how many seconds of virtual time it took."""
    try:
        return loop.run_until_complete(work), loop.time()
    finally:
        loop.close()
