"""One fork server, seen from asyncio: starts it, asks it, and knows which checkpoints it keeps.

One step at a time runs on a server. `SandboxLost` leaves the server stopped; the next request starts a fresh one, and
checkpoints come back by running their steps again.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from rstar.protocols import Execution, SandboxLost, Verdict
from sandbox.checkpoint import WARM_MODULES, Checkpoint
from sandbox.limits import Limits
from sandbox.verdicts import execution_of

BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from sandbox.server import main; del sys.path[0], sys.argv[1]; main()"
)
REPLY_SECONDS = 30.0  # beyond the step's own limit
STARTUP_SECONDS = 60.0  # and what a first import may take
MAX_LINE_BYTES = 64 * 2**20


class ForkServer:
    """Runs steps in forks of kept interpreters; at most `num_kept` of them, least recently used go first."""

    def __init__(self, limits: Limits, *, num_kept: int, namespaces: bool = True) -> None:
        self._limits = limits
        self._namespaces = namespaces
        self._num_kept = num_kept
        self._process: asyncio.subprocess.Process | None = None
        self._work: Path | None = None
        self._roots: set[str] = set()
        self._kept: OrderedDict[str, bool] = OrderedDict()  # checkpoint key -> forked from the warm root
        self._ids = count()
        self._lock = asyncio.Lock()
        self.isolation: dict[str, bool] = {}
        self.num_waiting = 0
        self.num_revived = 0
        self.num_starts = 0

    @property
    def num_checkpoints(self) -> int:
        return len(self._kept)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def holds(self, checkpoint: Checkpoint | None, *, warm: bool) -> bool:
        """Whether the step can start here without running its prefix again."""
        return checkpoint is None or self._kept.get(checkpoint.key, -1) >= warm

    async def start(self) -> None:
        async with self._lock:
            await self._start()

    async def run(self, parent: Checkpoint | None, code: str, *, key: str, warm: bool) -> Execution:
        """Run one step and keep its state as `key`; raises SandboxLost if the server died under it."""
        self.num_waiting += 1
        try:
            # Shielded: a caller who gives up must not leave half an exchange on the pipe.
            return await asyncio.shield(asyncio.ensure_future(self._run(parent, code, key=key, warm=warm)))
        finally:
            self.num_waiting -= 1

    def forget(self, keys: Collection[str]) -> None:
        """Give back kept interpreters."""
        keys = [key for key in keys if self._kept.pop(key, None) is not None]
        if keys and self._process and self._process.stdin and not self._process.stdin.is_closing():
            self._write({"op": "drop", "ids": keys})

    async def aclose(self) -> None:
        async with self._lock:
            await self._stop()

    async def _run(self, parent: Checkpoint | None, code: str, *, key: str, warm: bool) -> Execution:
        async with self._lock:
            try:
                await self._start()
                origin = await self._root(warm) if parent is None else await self._revive(parent, warm)
                report = await self._execute(origin, [code], key)
                if report is None:
                    raise SandboxLost("the sandbox server died")
            except (TimeoutError, SandboxLost, OSError) as error:
                detail = self._last_words()
                await self._stop()
                raise SandboxLost(f"{error or type(error).__name__}{detail}") from error
            if report["ending"] == "parent_gone":  # only that interpreter is lost
                self._kept.pop(origin, None)
                self._roots.discard(origin)
            execution = execution_of(report, self._limits)
            if execution.verdict is Verdict.OK:
                self._keep(key, warm)
            return execution

    async def _revive(self, checkpoint: Checkpoint, warm: bool) -> str:
        """Return the id of an interpreter in that state, made again where it was evicted or is of the wrong root."""
        if self.holds(checkpoint, warm=warm):
            self._kept.move_to_end(checkpoint.key)
            return checkpoint.key
        self.forget([checkpoint.key])
        report = await self._execute(await self._root(warm), checkpoint.codes(), checkpoint.key)
        if report is None or report.get("status") != "ok":
            raise SandboxLost(f"a prefix that ran before did not run again: {report and report.get('error')}")
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

    async def _execute(self, origin: str, codes: list[str], key: str) -> dict[str, Any] | None:
        seconds = self._limits.seconds * len(codes)
        request = {"op": "run", "parent": origin, "id": key, "codes": codes, "seconds": seconds}
        return await self._ask(request, seconds + REPLY_SECONDS)

    def _keep(self, key: str, warm: bool) -> None:
        self._kept[key] = warm
        while len(self._kept) > self._num_kept:
            self.forget([next(iter(self._kept))])

    async def _ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """Return the server's report, None where it died."""
        assert self._process and self._process.stdin and self._process.stdout
        try:
            self._write(request)
            await self._process.stdin.drain()
            line = await asyncio.wait_for(self._process.stdout.readline(), seconds)
            return json.loads(line) if line.endswith(b"\n") else None
        except (ConnectionError, ValueError):
            return None

    def _write(self, request: dict[str, Any]) -> None:
        assert self._process and self._process.stdin
        self._process.stdin.write(json.dumps(request).encode() + b"\n")

    async def _start(self) -> None:
        if self._process and self._process.returncode is None:
            return
        await self._stop()
        self._work = Path(tempfile.mkdtemp(prefix="rstar-sandbox-"))
        (self._work / "steps").mkdir()
        limits = json.dumps(asdict(self._limits))
        arguments = [str(Path(__file__).parent.parent), str(self._work / "steps"), limits, json.dumps(self._namespaces)]
        with (self._work / "server.log").open("wb") as log:
            # Not -I, which would ignore PYTHONHASHSEED: a step must print the same set in the same order every time.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-s", "-P", "-B", "-c", BOOT, *arguments,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                env=_clean_environment(self._work / "steps"), cwd=self._work / "steps",
                start_new_session=True, limit=MAX_LINE_BYTES,
            )  # fmt: skip
        self.num_starts += 1
        assert self._process.stdout
        try:
            hello = await asyncio.wait_for(self._process.stdout.readline(), STARTUP_SECONDS)
        except TimeoutError:
            hello = b""
        if not hello:
            raise SandboxLost(f"the sandbox server did not start in {STARTUP_SECONDS:g} s{self._last_words()}")
        self.isolation = json.loads(hello)["isolation"]

    async def _stop(self) -> None:
        process, self._process = self._process, None
        self._kept.clear()
        self._roots.clear()
        if process:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            assert process.stdout
            with suppress(ValueError):
                await process.communicate()
        if self._work:
            shutil.rmtree(self._work, ignore_errors=True)
            self._work = None

    def _last_words(self) -> str:
        """The end of the server's log, if it said anything."""
        with suppress(OSError, TypeError):
            if words := (self._work / "server.log").read_text(errors="replace").strip():  # type: ignore[operator]
                return f": {words.splitlines()[-1][:200]}"
        return ""


def _clean_environment(work: Path) -> dict[str, str]:
    """None of the caller's variables: a step finds no secret, and the same hashes every time."""
    environment = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment |= {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
    environment |= {"HOME": str(work), "TMPDIR": str(work)}
    if "LD_LIBRARY_PATH" in os.environ:  # some interpreters do not start without it
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return environment
