from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest
import torch

from models.batching import NUM_THREADS, Batcher, ThreadBatcher


async def test_each_engine_has_its_own_number_of_threads() -> None:
    def work(requests: Sequence[int]) -> list[int]:
        return [torch.get_num_threads() for _ in requests]

    for threads, expected in ((1, 1), (0, NUM_THREADS), (NUM_THREADS + 1, NUM_THREADS + 1), (0, NUM_THREADS)):
        batcher = ThreadBatcher(work, max_size=1, threads=threads)
        assert await batcher.ask(0) == expected
        await batcher.close()


async def test_requests_that_wait_while_the_model_works_are_the_next_batch() -> None:
    gate, batches = threading.Event(), []

    def work(requests: Sequence[int]) -> list[int]:
        batches.append(list(requests))
        gate.wait(5)
        return [request * 10 for request in requests]

    batcher = ThreadBatcher(work, max_size=3)
    tasks = [asyncio.create_task(batcher.ask(0))]
    while not batches:
        await asyncio.sleep(0.01)
    tasks += [asyncio.create_task(batcher.ask(number)) for number in range(1, 6)]
    await asyncio.sleep(0.05)
    gate.set()
    assert await asyncio.gather(*tasks) == [0, 10, 20, 30, 40, 50]
    assert batches == [[0], [1, 2, 3], [4, 5]]
    await batcher.close()


async def test_a_batch_is_the_oldest_request_and_those_closest_to_it_in_length() -> None:
    gate, batches = threading.Event(), []

    def work(requests: Sequence[int]) -> list[int]:
        batches.append(list(requests))
        gate.wait(5)
        return list(requests)

    batcher = ThreadBatcher(work, max_size=2)
    tasks = [asyncio.create_task(batcher.ask(0))]
    while not batches:
        await asyncio.sleep(0.01)
    tasks += [asyncio.create_task(batcher.ask(length, length=length)) for length in (100, 400, 110, 390)]
    await asyncio.sleep(0.05)
    gate.set()
    assert await asyncio.gather(*tasks) == [0, 100, 400, 110, 390]
    assert batches == [[0], [100, 110], [400, 390]]
    await batcher.close()


async def test_a_caller_that_asks_again_at_once_is_answered() -> None:
    async def work(requests: Sequence[int]) -> Sequence[int]:
        return requests

    async def asks(batcher: Batcher[int, int]) -> list[int]:
        return [await batcher.ask(number) for number in range(20)]

    for batcher in (ThreadBatcher[int, int](list, max_size=2), Batcher[int, int](work, max_size=2)):
        assert await asyncio.wait_for(asks(batcher), 5) == list(range(20))
        await batcher.close()


async def test_an_error_reaches_each_request_of_its_batch_and_no_other() -> None:
    def work(requests: Sequence[int]) -> list[int]:
        if 1 in requests:
            raise ValueError("lost")
        return list(requests)

    batcher = ThreadBatcher(work, max_size=2)
    found = await asyncio.gather(*(batcher.ask(number) for number in (0, 1, 2)), return_exceptions=True)
    assert [type(one) for one in found] == [ValueError, ValueError, int]
    await batcher.close()


async def test_a_cancelled_request_is_not_computed() -> None:
    seen: list[int] = []

    def work(requests: Sequence[int]) -> list[int]:
        seen.extend(requests)
        return list(requests)

    batcher = ThreadBatcher(work, max_size=8)
    tasks = [asyncio.create_task(batcher.ask(number)) for number in range(2)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    assert await tasks[0] == 0
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    assert seen == [0]
    await batcher.close()


async def test_a_request_larger_than_a_batch_is_a_batch_of_its_own() -> None:
    sizes: list[int] = []

    def work(requests: Sequence[int]) -> list[int]:
        sizes.append(len(requests))
        return list(requests)

    batcher = ThreadBatcher(work, max_size=4)
    await asyncio.gather(batcher.ask(1, size=9), batcher.ask(2, size=2), batcher.ask(3, size=2))
    assert sizes == [1, 2]
    await batcher.close()
