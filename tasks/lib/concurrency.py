"""Many coroutines at once, a few at a time: one failure ends them all and is raised as itself."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from sandbox.fair import sharing

Item = TypeVar("Item")
Result = TypeVar("Result")


async def map_concurrently(
    work: Callable[[Item], Awaitable[Result]], items: Iterable[Item], *, limit: int
) -> list[Result]:
    """Return the results in the order of the items, which take turns in the sandbox.

    A map_concurrently within an item takes the item's turns.
    """
    gate = asyncio.Semaphore(limit)

    async def one(item: Item) -> Result:
        if sharing.get() is None:
            sharing.set(object())
        async with gate:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except* Exception as failures:
        raise _first(failures) from None
    return [task.result() for task in tasks]


def collect_seldom() -> None:
    """Have the garbage collector of this process look less often at what a large map_concurrently holds.

    Thousands of trees are millions of objects, none of them garbage: at the default it takes nearly half of a search's
    CPU to find that out. Cycles of garbage still go, after two million more objects or so.
    """
    gc.set_threshold(200_000, 5, 2)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
