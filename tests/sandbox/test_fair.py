"""Groups take turns at a FairLock."""

from __future__ import annotations

import asyncio

import pytest

from sandbox.fair import FairLock


async def take(lock: FairLock, group: str, taken: list[str]) -> None:
    async with lock.hold(group):
        taken.append(group)
        await asyncio.sleep(0)


async def test_groups_take_turns_however_many_wait_in_one() -> None:
    lock, taken = FairLock(), []
    await asyncio.gather(*(take(lock, group, taken) for group in "aaaabbc"))
    assert "".join(taken) == "aabcaba"  # the first gets it at once; then the groups alternate


async def test_a_cancelled_waiter_loses_only_its_own_turn() -> None:
    lock, taken = FairLock(), []
    async with lock.hold():
        tasks = [asyncio.create_task(take(lock, group, taken)) for group in "ab"]
        await asyncio.sleep(0)
        tasks[0].cancel()
    await asyncio.wait_for(tasks[1], 1)
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert taken == ["b"]
    await asyncio.wait_for(take(lock, "c", taken), 1)
