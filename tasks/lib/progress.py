"""Progress: what is done of what, told by tasks to whoever watches (the terminal, Prefect's UI).

A task opens a `stage` and moves it on; listeners get every move, and Prefect a progress artifact now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

ARTIFACT_SECONDS = 5.0  # an artifact's update is a request to the server


@dataclass(frozen=True, slots=True)
class Progress:
    """One move: `done` of `total` units of a round's stage."""

    stage: str  # search, sft, ppm, evaluation …
    round: int
    done: int
    total: int
    note: str = ""


Listener = Callable[[Progress], None]
_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have `listener` called with every move made in this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class Stage:
    """A stage of a round that has `total` units; `await stage.advance()` where one is done."""

    def __init__(self, name: str, round: int, total: int) -> None:
        self.name, self.round, self.total, self.done = name, round, total, 0
        self._artifact = None
        self._told = time.monotonic()
        self._announce("")

    async def advance(self, count: int = 1, note: str = "") -> None:
        await self.reach(self.done + count, note)

    async def reach(self, done: int, note: str = "") -> None:
        """Say that `done` units are done; the server hears of it every few seconds at most."""
        self.done = done
        self._announce(note)
        if time.monotonic() - self._told < ARTIFACT_SECONDS:
            return
        self._told = time.monotonic()
        await self._tell_server()

    async def _tell_server(self) -> None:
        # Loaded here, so that the command line starts without Prefect.
        from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
        from prefect.context import FlowRunContext, TaskRunContext

        if TaskRunContext.get() is None and FlowRunContext.get() is None:
            return
        percent = 100.0 * self.done / max(1, self.total)
        if self._artifact is None:
            self._artifact = await acreate_progress_artifact(percent, description=f"round {self.round}: {self.name}")
        else:
            await aupdate_progress_artifact(self._artifact, percent)

    def _announce(self, note: str) -> None:
        for listener in _listeners:
            listener(Progress(self.name, self.round, self.done, self.total, note))
