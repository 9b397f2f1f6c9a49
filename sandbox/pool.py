"""The sandbox: runs steps on the fast path in this process, or else on a pool of fork servers.

Implements `rstar.protocols.Executor` (Section 3.2: a step is kept only if its code runs). Each provider is a subclass
of `Sandbox` that starts its own kind of server.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import replace
from itertools import count
from types import TracebackType
from typing import Self

from rstar.protocols import Execution, SandboxLost, Verdict
from sandbox.checkpoint import Checkpoint, imports_warm_modules
from sandbox.fair import sharing
from sandbox.forkserver import ForkServer, Launch
from sandbox.inside.fast_path.arithmetic import NotEligible, run_arithmetic
from sandbox.inside.fast_path.plain import decode, is_tame
from sandbox.limits import Limits

log = logging.getLogger(__name__)
PREFIX_COST = 2  # cost of a prefix step that must run again, in waiting steps
FORK_SECONDS, STEP_SECONDS = 0.005, 0.0003  # cost of keeping an interpreter, and overhead of a step that runs again
RETRY_SECONDS = 0.2  # before the second attempt; doubles before each further one
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class Sandbox(ABC):
    """Runs steps: `async with open_sandbox() as sandbox: await sandbox.run(None, "x = 1")`. For one event loop only."""

    def __init__(
        self, launch: Launch, *, limits: Limits | None = None, num_workers: int | None = None, fast_path: bool = True
    ) -> None:
        self.limits = limits or Limits()
        num_workers = len(os.sched_getaffinity(0)) if num_workers is None else num_workers
        if num_workers < 1:
            raise ValueError(f"sandbox: {num_workers} workers; there must be at least one")
        num_kept = max(1, self.limits.num_checkpoints // num_workers)
        each = replace(self.limits, num_checkpoints=num_kept)
        self._servers = [ForkServer(each, num_kept=num_kept, launch=launch) for _ in range(num_workers)]
        self._fast_path = fast_path
        self._checkpoints: dict[str, Checkpoint] = {}
        self._ids = count()
        self._verdicts: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._seconds = self._waited = 0.0

    async def __aenter__(self) -> Self:
        await self.prepare()
        sharing.set(None)  # the group of the opener must not apply to all steps
        log.info("%s", self.protections())
        others = {server.python for server in self._servers} - {"", PYTHON}
        if self._fast_path and others:
            self._fast_path = False
            log.warning("no fast path: steps run on Python %s, this process on %s", ", ".join(sorted(others)), PYTHON)
        return self

    async def prepare(self) -> None:
        """Start the first server. The others start when they get a step."""
        await self._servers[0].start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        self._checkpoints.clear()
        ends = await asyncio.gather(*(server.aclose() for server in self._servers), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    async def run(self, checkpoint: str | None, code: str) -> Execution:
        """Run `code` after the step that returned `checkpoint`; raises SandboxLost if all attempts fail."""
        if self._servers[0].closed:
            raise SandboxLost("the sandbox is closed")
        if not isinstance(code, str):
            raise TypeError(f"the code of a step is text, not {type(code).__name__}")
        start = time.perf_counter()
        parent = None if checkpoint is None else self._checkpoint(checkpoint)
        key = f"c{next(self._ids)}"
        execution, child = self._run_fast(parent, code, key) or await self._run_forked(parent, code, key)
        handle = None
        if execution.verdict is Verdict.OK:
            self._checkpoints[key] = child
            handle = key
        seconds = time.perf_counter() - start
        self._verdicts[execution.verdict.value] += 1
        self._seconds += seconds
        self._waited += max(0.0, seconds - execution.seconds) if execution.seconds else 0.0
        return replace(execution, checkpoint=handle, seconds=execution.seconds or seconds)

    async def release(self, checkpoint: str) -> None:
        """Release a checkpoint. Those that continue it stay. Ignores unknown ones."""
        if self._checkpoints.pop(checkpoint, None):
            for server in self._servers:
                server.forget([checkpoint])

    def metrics(self) -> dict[str, float]:
        """Counts since the start. `wait_seconds` is the part of `seconds` that was spent waiting and forking."""
        executions = sum(self._verdicts.values())
        metrics: dict[str, float] = {
            "executions": executions,
            "seconds": self._seconds,
            "wait_seconds": self._waited,
            "fast_path": self._counts["fast_path"],
            "fast_path_share": self._counts["fast_path"] / executions if executions else 0.0,
            "checkpoints": len(self._checkpoints),
            "checkpoints_kept": sum(server.num_checkpoints for server in self._servers),
            "checkpoint_hits": self._counts["hits"],
            "checkpoint_revivals": sum(server.num_revived for server in self._servers),
            "steps_again": sum(server.num_again for server in self._servers),
            "sandbox_lost": self._counts["lost"],
            "server_starts": sum(server.num_starts for server in self._servers),
        }
        return metrics | {f"verdict_{verdict.value}": self._verdicts[verdict.value] for verdict in Verdict}

    @abstractmethod
    def protections(self) -> str:
        """One paragraph: what protects this machine from a step, and what does not."""

    def _checkpoint(self, handle: str) -> Checkpoint:
        try:
            return self._checkpoints[handle]
        except KeyError:
            raise ValueError(f"checkpoint {handle!r} is unknown or was released") from None

    def _run_fast(self, parent: Checkpoint | None, code: str, key: str) -> tuple[Execution, Checkpoint] | None:
        """Run the step on the fast path, with the variables of the steps before it; None if it is not eligible."""
        variables = {} if parent is None else parent.variables
        if not self._fast_path or variables is None:
            return None
        start = time.perf_counter()
        try:
            outcome = run_arithmetic(code, variables, max_output_bytes=self.limits.output_bytes)
        except NotEligible:
            return None
        taken = time.perf_counter() - start
        self._counts["fast_path"] += 1
        execution = Execution(outcome.verdict, outcome.output, outcome.error)
        warm = parent is not None and parent.warm
        again = (parent.again_seconds if parent else 0.0) + taken + STEP_SECONDS
        keepable = again > FORK_SECONDS
        again_seconds = 0.0 if keepable else again
        return execution, Checkpoint(key, parent, code, outcome.variables, warm, taken, keepable, again_seconds)

    async def _run_forked(self, parent: Checkpoint | None, code: str, key: str) -> tuple[Execution, Checkpoint]:
        warm = imports_warm_modules(code) or (parent is not None and parent.warm)
        tame = self._fast_path and is_tame(code) and (parent is None or parent.variables is not None)
        group = sharing.get() or (parent.tree if parent else key)
        for attempt in range(self.limits.num_retries + 1):
            server = self._choose(parent, warm)
            self._counts["hits"] += parent is not None and server.is_hit(parent, warm=warm)
            try:
                ran = await server.run(parent, code, key=key, warm=warm, plain=tame, group=group)
                # Drop checkpoints that were released meanwhile and restored for this step.
                server.forget(
                    [one.key for one in (parent.path() if parent else []) if one.key not in self._checkpoints]
                )
                variables = None if ran.variables is None else decode(ran.variables)
                taken = ran.execution.seconds
                return ran.execution, Checkpoint(key, parent, code, variables, warm, taken, ran.keepable)
            except SandboxLost as error:
                if server.closed:
                    raise
                self._counts["lost"] += 1
                log.warning("the sandbox died (attempt %d of %d): %s", attempt + 1, self.limits.num_retries + 1, error)
                if attempt == self.limits.num_retries:
                    raise
                await asyncio.sleep(RETRY_SECONDS * 2**attempt)
        raise AssertionError("unreachable")

    def _choose(self, parent: Checkpoint | None, warm: bool) -> ForkServer:
        """The server with the least work: its waiting steps and the prefix steps it would have to run again."""
        return min(
            self._servers, key=lambda each: each.num_waiting + PREFIX_COST * each.num_to_revive(parent, warm=warm)
        )
