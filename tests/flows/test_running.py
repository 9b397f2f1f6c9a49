from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest

from flows.running import run_until_stopped
from rstar.protocols import UserError


def signals_in(seconds: float, *numbers: signal.Signals) -> None:
    def send() -> None:
        for number in numbers:
            time.sleep(seconds)
            os.kill(os.getpid(), number)

    threading.Thread(target=send).start()


def test_the_result_and_the_error_of_the_work_are_handed_on() -> None:
    async def answer() -> str:
        return "done"

    async def fail() -> str:
        raise UserError("no such thing")

    assert run_until_stopped(answer()) == "done"
    with pytest.raises(UserError, match="no such thing"):
        run_until_stopped(fail())


@pytest.mark.parametrize("later", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_work_and_a_second_one_leaves_its_clean_up_alone(first, later) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    cleaned: list[str] = []

    async def work() -> str:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.5)
            cleaned.append("up")
        return "done"

    signals_in(0.2, first, later)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_until_stopped(work())
    assert cleaned == ["up"] and 0.6 < time.monotonic() - began < 10
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_what_the_flow_made_of_its_cancelling_is_an_interrupt_too() -> None:
    async def work() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            raise RuntimeError("a task was cancelled") from None
        return "done"

    signals_in(0.2, signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run_until_stopped(work())
