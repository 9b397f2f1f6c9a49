"""A client of one fork server: starts it, sends it requests, and tracks which checkpoints it keeps.

A server runs one step at a time. `SandboxLost` stops the server. The next request starts a new one, and checkpoints are
restored by running their steps again.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from rstar.protocols import Execution, SandboxLost, UserError, Verdict
from sandbox.checkpoint import WARM_MODULES, Checkpoint
from sandbox.fair import FairLock
from sandbox.limits import Limits
from sandbox.link import Link, last_line
from sandbox.verdicts import execution_of


@dataclass(frozen=True, slots=True)
class Ran:
    """A step that ran; `variables` as `fast_path.plain.encode` reports them, or None."""

    execution: Execution
    variables: dict[str, Any] | None
    keepable: bool = True  # whether the interpreter was kept, so that further steps can fork from it


class PrefixFailed(Exception):
    """The steps before this one failed when they ran again; `report` says how they ended."""

    def __init__(self, report: dict[str, Any]) -> None:
        super().__init__(report["ending"])
        self.report = report


class InterpreterGone(Exception):
    """A kept interpreter no longer forks."""


Launch = Callable[[Limits], Awaitable[Link]]
REPLY_SECONDS = 30.0  # to wait for a report, beyond the step's own limit
SLACK, SLACK_SECONDS = 4.0, 0.25  # a step that runs again may take SLACK times its first time plus SLACK_SECONDS
MAX_LOST = 2  # lost requests in a row after which a server is replaced, even if it still answers
STARTUP_SECONDS = 60.0  # for a root to import its modules


class ForkServer:
    """Runs steps in forks of kept interpreters. Keeps at most `num_kept` and evicts the least recently used first."""

    def __init__(self, limits: Limits, *, num_kept: int, launch: Launch) -> None:
        self._limits = limits
        self._launch = launch
        self._num_kept = num_kept
        self._link: Link | None = None
        self._roots: set[str] = set()
        self._kept: OrderedDict[str, bool] = OrderedDict()  # checkpoint key -> forked from the warm root
        self._dropped: list[str] = []
        self._reply: asyncio.Future[bytes] | None = None  # the one awaited now
        self._lock = FairLock()
        self.isolation: dict[str, bool] = {}
        self.python = ""  # the server's version, once it has started
        self.closed = False
        self._num_lost = 0
        self.num_waiting = 0
        self.num_revived = 0
        self.num_again = 0  # steps that ran again in the process of a step that continues them
        self.num_starts = 0

    @property
    def num_checkpoints(self) -> int:
        return len(self._kept)

    @property
    def pid(self) -> int | None:
        return self._link.pid if self._link else None

    def num_to_revive(self, checkpoint: Checkpoint | None, *, warm: bool) -> int:
        """The number of steps that must run again here to restore an interpreter for `checkpoint`."""
        return sum(step.keepable for step in self._missing(checkpoint, warm=warm))

    def is_hit(self, checkpoint: Checkpoint, *, warm: bool) -> bool:
        """Whether a kept interpreter can fork a step that continues this checkpoint, without restoring it first."""
        missing = self._missing(checkpoint, warm=warm)
        return len(missing) < len(checkpoint.path()) and not any(step.keepable for step in missing)

    def _missing(self, checkpoint: Checkpoint | None, *, warm: bool) -> list[Checkpoint]:
        """The steps on the way to `checkpoint` that must run again here: those after the last kept one."""
        path = checkpoint.path() if checkpoint else []
        for i in reversed(range(len(path))):
            if self._kept.get(path[i].key, -1) >= warm:
                return path[i + 1 :]
        return path

    async def start(self) -> None:
        async with self._lock.hold():
            await self._start()

    async def run(
        self, parent: Checkpoint | None, code: str, *, key: str, warm: bool, plain: bool, group: Hashable
    ) -> Ran:
        """Run one step and keep its state as `key`; raises SandboxLost if the server dies.

        Groups take turns. With `plain` the result includes the step's plain variables.
        """
        self.num_waiting += 1
        running = asyncio.ensure_future(self._run(parent, code, key=key, warm=warm, plain=plain, group=group))
        running.add_done_callback(self._count_off)
        try:
            # Shielded, because a cancelled caller must not leave a request without its reply on the pipe.
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            running.add_done_callback(lambda done: self._let_go(done, key))
            raise

    def _count_off(self, _: asyncio.Future[Ran]) -> None:
        self.num_waiting -= 1

    def _let_go(self, done: asyncio.Future[Ran], key: str) -> None:
        """Release the state of a step whose caller was cancelled."""
        if not done.cancelled():
            done.exception()  # marks it as retrieved, so that asyncio does not log it
        self.forget([key])

    def forget(self, keys: Collection[str]) -> None:
        """Drop kept interpreters. The next request tells the server."""
        keys = [key for key in keys if self._kept.pop(key, None) is not None]
        self._dropped += keys

    async def aclose(self) -> None:
        """Stop the server for good, with the step that runs. Waiting steps raise SandboxLost."""
        self.closed = True
        if self._reply:
            self._reply.cancel()
        async with self._lock.hold():
            await self._stop()

    async def _run(
        self, parent: Checkpoint | None, code: str, *, key: str, warm: bool, plain: bool, group: Hashable
    ) -> Ran:
        async with self._lock.hold(group):
            try:
                await self._start()
                report = await self._continue(parent, code, key=key, warm=warm, plain=plain)
                if report is None:
                    raise SandboxLost("the sandbox server died")
                if report.get("worn"):
                    await self._stop()  # the next request starts a new server
            except (TimeoutError, SandboxLost, UserError, OSError) as error:  # UserError: the engine has since gone
                words = self._link.last_words() if self._link else ""
                await self._stop()
                raise SandboxLost(f"{str(error) or type(error).__name__}{last_line(words)}") from error
            try:
                execution = execution_of(report, self._limits)
            except SandboxLost:
                self._num_lost += 1
                if self._num_lost >= MAX_LOST:
                    await self._stop()
                raise
            self._num_lost = 0
            keepable = bool(report.get("kept"))
            if execution.verdict is Verdict.OK and keepable and self._link:
                self._keep(key, warm)
            return Ran(execution, report.get("variables") if plain else None, keepable)

    async def _continue(
        self, parent: Checkpoint | None, code: str, *, key: str, warm: bool, plain: bool
    ) -> dict[str, Any] | None:
        """Return the report on a step. If its prefix cannot be restored, the report blames the trajectory."""
        for last in (False, True):
            try:
                origin, again = await self._revive(parent, warm)
            except PrefixFailed as failed:
                return failed.report
            except InterpreterGone:
                if last:
                    return {"ending": "unlike_itself"}
                continue
            codes = [*(step.code for step in again), code]
            seconds = self._seconds(again, patient=last) + self._limits.seconds
            report = await self._execute(origin, codes, key, seconds=seconds, plain=plain)
            self.num_again += len(again)
            if report and report["ending"] == "timed_out" and again and not report["reached"]:
                if last:
                    return {"ending": "unlike_itself"}
                continue  # the steps before it timed out, not the step itself
            if report is None or report["ending"] not in ("parent_gone", "unstarted"):
                return report
            if report["ending"] == "parent_gone":  # only that interpreter is gone
                self._kept.pop(origin, None)
                self._roots.discard(origin)
            if parent is None:
                return report
            if last and report["ending"] == "parent_gone":
                return {"ending": "unlike_itself"}
        return report

    async def _revive(self, checkpoint: Checkpoint | None, warm: bool) -> tuple[str, list[Checkpoint]]:
        """Return an interpreter for a step that continues `checkpoint`, and the steps that the fork must run first.

        Restores an interpreter if none is kept. The fork runs the steps that cannot be kept.
        """
        if checkpoint is None:
            return await self._root(warm), []
        path, missing = checkpoint.path(), self._missing(checkpoint, warm=warm)
        kept = path[: len(path) - len(missing)]
        if kept:
            self._kept.move_to_end(kept[-1].key)
        origin = kept[-1].key if kept else await self._root(warm)
        while missing and not missing[-1].keepable:
            checkpoint = missing.pop().parent
        again = path[len(kept) + len(missing) :]
        if not missing or checkpoint is None:
            return origin, again
        self.forget([checkpoint.key])  # one forked from the other root may be kept
        codes = [step.code for step in missing]
        for patient in (False, True):
            seconds = self._seconds(missing, patient=patient)
            report = await self._execute(origin, codes, checkpoint.key, seconds=seconds)
            if not report or report["ending"] != "timed_out":
                break
        if report is None:
            raise SandboxLost("the sandbox server died")
        if report["ending"] == "parent_gone":
            self._kept.pop(origin, None)
            self._roots.discard(origin)
        if report["ending"] in ("parent_gone", "unstarted"):
            raise InterpreterGone if kept else SandboxLost("an interpreter ended")
        if report.get("status") != "ok":
            raise PrefixFailed({"ending": "unlike_itself"} if report["ending"] == "timed_out" else report)
        if not report.get("kept"):  # this time a step left something open
            return origin, [*missing, *again]
        self.num_revived += 1
        self._keep(checkpoint.key, warm)
        return checkpoint.key, again

    def _seconds(self, steps: Sequence[Checkpoint], *, patient: bool) -> float:
        """The time limit for steps that run again; with `patient` one step's limit more."""
        limit = self._limits.seconds
        seconds = sum(min(limit, SLACK * step.seconds + SLACK_SECONDS) for step in steps)
        return seconds + limit if patient else seconds

    async def _root(self, warm: bool) -> str:
        key = "root-warm" if warm else "root"
        if key not in self._roots:
            modules = WARM_MODULES if warm else ("fractions", "math", "itertools", "collections", "decimal", "random")
            report = await self._ask({"op": "root", "id": key, "modules": modules}, STARTUP_SECONDS)
            if report is None or report["ending"] != "finished":
                raise SandboxLost("an interpreter did not start")
            self._roots.add(key)
        return key

    async def _execute(
        self, origin: str, codes: list[str], key: str, *, seconds: float, plain: bool = False
    ) -> dict[str, Any] | None:
        request = {"op": "run", "parent": origin, "id": key, "codes": codes, "seconds": seconds, "plain": plain}
        return await self._ask(request, seconds + REPLY_SECONDS)

    def _keep(self, key: str, warm: bool) -> None:
        self._kept[key] = warm
        while len(self._kept) > self._num_kept:
            self.forget([next(iter(self._kept))])

    async def _ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """Return the server's report; None if the server died."""
        assert self._link
        dropped, self._dropped = self._dropped, []
        if dropped:
            request = request | {"drop": dropped}
        try:
            await self._link.send(json.dumps(request).encode() + b"\n")
            self._reply = asyncio.ensure_future(self._link.receive())
            line = await asyncio.wait_for(self._reply, seconds)
            return json.loads(line) if line.endswith(b"\n") else None
        except asyncio.CancelledError:
            if not self.closed:
                raise
            return None
        except (ConnectionError, ValueError, RecursionError):
            return None

    async def _start(self) -> None:
        if self.closed:
            raise SandboxLost("the sandbox is closed")
        if self._link and self._link.alive:
            return
        await self._stop()
        self._link = await self._launch(self._limits)
        self.num_starts += 1
        self.isolation, self.python = self._link.isolation, self._link.python

    async def _stop(self) -> None:
        link, self._link, self._num_lost = self._link, None, 0
        self._kept.clear()
        self._roots.clear()
        self._dropped.clear()
        if link:
            await link.stop()
