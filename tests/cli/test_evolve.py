"""How signals stop a run: the work is cancelled once, and its clean-up is not disturbed."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from cli.evolve import run_until_stopped
from rstar.protocols import UserError


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_the_result_or_the_error_of_the_work_is_returned() -> None:
    async def answer() -> str:
        return "done"

    async def fail() -> str:
        raise UserError("no such thing")

    assert run_until_stopped(answer()) == "done"
    with pytest.raises(UserError, match="no such thing"):
        run_until_stopped(fail())


@pytest.mark.parametrize("later", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_work_and_a_second_one_does_not_disturb_its_clean_up(first, later) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    cleaned: list[str] = []

    async def work() -> str:
        try:
            send(first)
            await asyncio.sleep(30)
            cleaned.append("never cancelled")
        finally:
            send(later)
            await asyncio.sleep(0.5)
            cleaned.append("up")
        return "done"

    with pytest.raises(KeyboardInterrupt):
        run_until_stopped(work())
    assert cleaned == ["up"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_another_error_of_cancelled_work_is_an_interrupt_too() -> None:
    async def work() -> str:
        send(signal.SIGTERM)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            raise RuntimeError("a task was cancelled") from None
        return "done"

    with pytest.raises(KeyboardInterrupt):
        run_until_stopped(work())
