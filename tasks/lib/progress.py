"""Progress of tasks, for the terminal and for Prefect's UI.

A task creates a `Stage` and advances it. Listeners get every update. Prefect gets a progress artifact, which is updated
every few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

ARTIFACT_SECONDS = 5.0  # between updates of an artifact, each of which is a request to the server


@dataclass(frozen=True, slots=True)
class Progress:
    """An update: `done` of `total` units of a stage are done."""

    stage: str  # such as search, sft, ppm or evaluation
    round: int
    done: int
    total: int
    note: str = ""


Listener = Callable[[Progress], None]
_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener` with every update in this process, for the length of a block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class Stage:
    """A stage of a round with `total` units of work."""

    def __init__(self, name: str, round: int, total: int) -> None:
        self.name, self.round, self.total, self.done = name, round, total, 0
        self._artifact: UUID | None = None
        self._updated = time.monotonic()
        self._notify("")

    async def advance(self, note: str = "") -> None:
        """Report that one more unit is done."""
        await self.reach(self.done + 1, note)

    async def reach(self, done: int, note: str = "") -> None:
        """Report that `done` units are done."""
        self.done = done
        self._notify(note)
        if time.monotonic() - self._updated < ARTIFACT_SECONDS:
            return
        self._updated = time.monotonic()
        await self._update_artifact()

    async def _update_artifact(self) -> None:
        # Imported here, so that the command line starts without Prefect.
        from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
        from prefect.context import FlowRunContext, TaskRunContext

        if TaskRunContext.get() is None and FlowRunContext.get() is None:
            return
        percent = 100.0 * self.done / max(1, self.total)
        if self._artifact is None:
            self._artifact = await acreate_progress_artifact(percent, description=f"round {self.round}: {self.name}")
        else:
            await aupdate_progress_artifact(self._artifact, percent)

    def _notify(self, note: str) -> None:
        for listener in _listeners:
            listener(Progress(self.name, self.round, self.done, self.total, note))
