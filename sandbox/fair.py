"""A lock whose holders take turns by group, so that a tree with many steps waiting does not hold up the others."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from contextvars import ContextVar

sharing: ContextVar[Hashable] = ContextVar("sharing", default=None)
"""Who the work of this context takes turns as; None: every tree for itself."""


class FairLock:
    """One holder at a time; of those that wait, one of each group in turn, and within a group first come first."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()
        self._held = False

    @asynccontextmanager
    async def hold(self, group: Hashable = "") -> AsyncIterator[None]:
        await self._acquire(group)
        try:
            yield
        finally:
            self._pass_on()

    async def _acquire(self, group: Hashable) -> None:
        if not self._held:
            self._held = True
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(group, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was given the lock as it gave up
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            group, queue = self._waiting.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._waiting[group] = queue  # to the end of the line
            if not turn.done():
                turn.set_result(None)
                return
        self._held = False
