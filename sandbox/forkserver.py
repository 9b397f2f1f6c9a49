"""One fork server, seen from asyncio: starts it, asks it, and knows which checkpoints it keeps.

One step at a time runs on a server. `SandboxLost` leaves the server stopped; the next request starts a fresh one, and
checkpoints come back by running their steps again.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from rstar.protocols import Execution, SandboxLost, Verdict
from sandbox.checkpoint import WARM_MODULES, Checkpoint
from sandbox.fair import FairLock
from sandbox.limits import Limits
from sandbox.link import Link, last_line
from sandbox.verdicts import execution_of


@dataclass(frozen=True, slots=True)
class Ran:
    """A step that ran here; `variables` as `sandbox.plain.encode` reports them, None where they are of no use."""

    execution: Execution
    variables: dict[str, Any] | None


class PrefixFailed(Exception):
    """Steps that ran before did not run again; `report` says how that ended."""

    def __init__(self, report: dict[str, Any]) -> None:
        super().__init__(report["ending"])
        self.report = report


Launch = Callable[[Limits], Awaitable[Link]]
REPLY_SECONDS = 30.0  # beyond the step's own limit
MAX_LOST = 2  # requests in a row, before a server that still answers is replaced
STARTUP_SECONDS = 60.0  # what a first import may take


class ForkServer:
    """Runs steps in forks of kept interpreters; at most `num_kept` of them, least recently used go first."""

    def __init__(self, limits: Limits, *, num_kept: int, launch: Launch) -> None:
        self._limits = limits
        self._launch = launch
        self._num_kept = num_kept
        self._link: Link | None = None
        self._roots: set[str] = set()
        self._kept: OrderedDict[str, bool] = OrderedDict()  # checkpoint key -> forked from the warm root
        self._dropped: list[str] = []
        self._lock = FairLock()
        self.isolation: dict[str, bool] = {}
        self._num_lost = 0
        self.num_waiting = 0
        self.num_revived = 0
        self.num_starts = 0

    @property
    def num_checkpoints(self) -> int:
        return len(self._kept)

    @property
    def pid(self) -> int | None:
        return self._link.pid if self._link else None

    def missing(self, checkpoint: Checkpoint | None, *, warm: bool) -> list[Checkpoint]:
        """The steps that must run again before one can continue `checkpoint` here: those after the last one kept."""
        path = checkpoint.path() if checkpoint else []
        for i in reversed(range(len(path))):
            if self._kept.get(path[i].key, -1) >= warm:
                return path[i + 1 :]
        return path

    async def start(self) -> None:
        async with self._lock.hold():
            await self._start()

    async def run(self, parent: Checkpoint | None, code: str, *, key: str, warm: bool, plain: bool) -> Ran:
        """Run one step and keep its state as `key`; raises SandboxLost if the server died under it.

        With `plain` its plain variables are reported too.
        """
        self.num_waiting += 1
        try:
            # Shielded: a caller who gives up must not leave half an exchange on the pipe.
            return await asyncio.shield(asyncio.ensure_future(self._run(parent, code, key=key, warm=warm, plain=plain)))
        finally:
            self.num_waiting -= 1

    def forget(self, keys: Collection[str]) -> None:
        """Give back kept interpreters; the server hears of it with its next request."""
        keys = [key for key in keys if self._kept.pop(key, None) is not None]
        self._dropped += keys

    async def aclose(self) -> None:
        async with self._lock.hold():
            await self._stop()

    async def _run(self, parent: Checkpoint | None, code: str, *, key: str, warm: bool, plain: bool) -> Ran:
        async with self._lock.hold(parent.tree if parent else key):
            try:
                await self._start()
                report = await self._continue(parent, code, key=key, warm=warm, plain=plain)
                if report is None:
                    raise SandboxLost("the sandbox server died")
                if report.get("worn"):
                    await self._stop()  # what steps left in it is gone; the next request finds a fresh one
            except (TimeoutError, SandboxLost, OSError) as error:
                words = self._link.last_words() if self._link else ""
                await self._stop()
                raise SandboxLost(f"{error or type(error).__name__}{last_line(words)}") from error
            try:
                execution = execution_of(report, self._limits)
            except SandboxLost:
                self._num_lost += 1
                if self._num_lost >= MAX_LOST:
                    await self._stop()
                raise
            self._num_lost = 0
            if execution.verdict is Verdict.OK and self._link:
                self._keep(key, warm)
            return Ran(execution, report.get("variables") if plain else None)

    async def _continue(
        self, parent: Checkpoint | None, code: str, *, key: str, warm: bool, plain: bool
    ) -> dict[str, Any] | None:
        """Return the report on a step; one that its prefix makes impossible ends as that trajectory's own fault."""
        for last in (False, True):
            try:
                origin = await self._root(warm) if parent is None else await self._revive(parent, warm)
            except PrefixFailed as failed:
                return failed.report
            report = await self._execute(origin, [code], key, plain=plain)
            if report is None or report["ending"] not in ("parent_gone", "unstarted"):
                return report
            if report["ending"] == "parent_gone":  # only that interpreter is lost
                self._kept.pop(origin, None)
                self._roots.discard(origin)
            if parent is None:
                return report
            if last:
                return {"ending": "unlike_itself"}
        raise AssertionError("unreachable")

    async def _revive(self, checkpoint: Checkpoint, warm: bool) -> str:
        """Return the id of an interpreter in that state, made again from the last one kept on the way to it."""
        path, missing = checkpoint.path(), self.missing(checkpoint, warm=warm)
        if not missing:
            self._kept.move_to_end(checkpoint.key)
            return checkpoint.key
        self.forget([checkpoint.key])  # of the wrong root
        kept = path[: -len(missing)]
        origin = kept[-1].key if kept else await self._root(warm)
        report = await self._execute(origin, [step.code for step in missing], checkpoint.key)
        if report is None:
            raise SandboxLost("the sandbox server died")
        if report["ending"] == "parent_gone":
            self._kept.pop(origin, None)
            self._roots.discard(origin)
        if report["ending"] in ("parent_gone", "unstarted"):
            raise SandboxLost("an interpreter ended")
        if report.get("status") != "ok":
            raise PrefixFailed(report)
        self.num_revived += 1
        self._keep(checkpoint.key, warm)
        return checkpoint.key

    async def _root(self, warm: bool) -> str:
        key = "root-warm" if warm else "root"
        if key not in self._roots:
            modules = WARM_MODULES if warm else ("fractions", "math", "itertools", "collections", "decimal", "random")
            report = await self._ask({"op": "root", "id": key, "modules": modules}, STARTUP_SECONDS)
            if report is None or report["ending"] != "finished":
                raise SandboxLost("an interpreter did not start")
            self._roots.add(key)
        return key

    async def _execute(self, origin: str, codes: list[str], key: str, *, plain: bool = False) -> dict[str, Any] | None:
        seconds = self._limits.seconds * len(codes)
        request = {"op": "run", "parent": origin, "id": key, "codes": codes, "seconds": seconds, "plain": plain}
        return await self._ask(request, seconds + REPLY_SECONDS)

    def _keep(self, key: str, warm: bool) -> None:
        self._kept[key] = warm
        while len(self._kept) > self._num_kept:
            self.forget([next(iter(self._kept))])

    async def _ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """Return the server's report, None where it died."""
        assert self._link
        dropped, self._dropped = self._dropped, []
        if dropped:
            request = request | {"drop": dropped}
        try:
            await self._link.send(json.dumps(request).encode() + b"\n")
            line = await asyncio.wait_for(self._link.receive(), seconds)
            return json.loads(line) if line.endswith(b"\n") else None
        except (ConnectionError, ValueError, RecursionError):
            return None

    async def _start(self) -> None:
        if self._link and self._link.alive:
            return
        await self._stop()
        self._link = await self._launch(self._limits)
        self.num_starts += 1
        self.isolation = self._link.isolation

    async def _stop(self) -> None:
        link, self._link, self._num_lost = self._link, None, 0
        self._kept.clear()
        self._roots.clear()
        self._dropped.clear()
        if link:
            await link.stop()
