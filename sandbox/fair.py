"""A lock that groups take in turn, so that a tree with many waiting steps does not delay the other trees."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from contextvars import ContextVar

sharing: ContextVar[Hashable] = ContextVar("sharing", default=None)
"""The group of all steps run in this context. None: each tree is its own group."""


class FairLock:
    """A lock that passes from group to group. Within a group it is first come, first served."""

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
            if not turn.cancelled():  # it got the lock just as it was cancelled
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            group, queue = self._waiting.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._waiting[group] = queue  # at the end of the order
            if not turn.done():
                turn.set_result(None)
                return
        self._held = False
