"""Concurrency: a coroutine for each item, with a limit on how many run at the same time."""

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
    """Return the result of `work` for each item, in the order of the items.

    At most `limit` items are in work. The sandbox shares its workers fairly among the items; a nested call counts as
    part of its item. The first failure cancels all items and is raised unchanged.
    """
    semaphore = asyncio.Semaphore(limit)

    async def work_on(item: Item) -> Result:
        if sharing.get() is None:
            sharing.set(object())
        async with semaphore:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work_on(item)) for item in items]
    except* Exception as failures:
        raise _first(failures) from None
    return [task.result() for task in tasks]


def relax_garbage_collection() -> None:
    """Make the garbage collector of this process run less often, for searches that hold many trees.

    Thousands of trees are millions of objects, none of them garbage. With the default thresholds the collector takes
    nearly half of a search's CPU time. With these it still collects cycles, after about two million more objects.
    """
    gc.set_threshold(200_000, 5, 2)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
