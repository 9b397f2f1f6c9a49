"""Runs hostile code on a provider and watches the host for escapes: `rstar sandbox attack`.

Each row of code runs as a step. These count as an escape: a change of the watched files, a connection to a port of this
host, the secret of a file of this host in the step's output, or a next step that is not answered. Files that other
programs change while no step runs are reported once and no longer watched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rstar.protocols import SandboxLost
from sandbox.pool import Sandbox

DEPTH = 2  # levels of folders to look at, from each watched one
IDLE_SECONDS = 3.0  # to watch the host before the first step
OURS = ("rstar-", "pytest-", "bash_jobs", "tmp")  # prefixes of temporary files that other programs may create


def watched() -> tuple[Path, ...]:
    """The folders of this host that no step may change."""
    return Path("/etc"), Path("/usr/local"), Path.home(), Path.cwd(), Path(tempfile.gettempdir())


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of one row."""

    id: str
    verdict: str
    escapes: list[str]
    error: str
    seconds: float
    recovered_seconds: float  # that the next step took


class Canary:
    """A secret file, a port that no step may reach, and snapshots of the host's files."""

    def __init__(self) -> None:
        self.secret = secrets.token_hex(16)
        self.folder = Path(tempfile.mkdtemp(prefix="rstar-canary-"))
        self.file = self.folder / "secret.txt"
        self.file.write_text(self.secret)
        self.num_connections = 0
        self.port = 0
        self.restless: set[str] = set()  # paths that change while no step runs

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Canary]:
        def count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.num_connections += 1
            writer.close()

        server = await asyncio.start_server(count, "0.0.0.0", 0)
        self.port = server.sockets[0].getsockname()[1]
        os.environ["RSTAR_CANARY_SECRET"] = self.secret
        try:
            async with server:
                yield self
        finally:
            os.environ.pop("RSTAR_CANARY_SECRET", None)
            shutil.rmtree(self.folder, ignore_errors=True)

    def fill_in(self, code: str) -> str:
        """Replace `{CANARY_FILE}` and `{CANARY_PORT}` in the code."""
        return code.replace("{CANARY_FILE}", str(self.file)).replace("{CANARY_PORT}", str(self.port))

    def snapshot(self) -> dict[str, tuple[int, int]]:
        """Size and modification time of the watched files, without those of this process."""
        seen = {str(self.file): _state(self.file)}
        for root in watched():
            seen |= _walk(root, DEPTH)
        return {path: state for path, state in seen.items() if path not in self.restless}

    async def settle(self, seconds: float) -> set[str]:
        """Find the paths that change while no step runs, exclude them from now on, and return them."""
        before = self.snapshot()
        await asyncio.sleep(seconds)
        self.restless |= _changed(before, self.snapshot())
        return self.restless

    def escapes(self, before: Mapping[str, tuple[int, int]], connections: int, told: str) -> list[str]:
        found = [f"changed {path}" for path in sorted(_changed(before, self.snapshot()))[:3]]
        if self.num_connections > connections:
            found.append("reached the host's port")
        if self.secret in told:
            found.append("read the host's secret")
        return found


async def attack(
    sandbox: Sandbox, rows: Iterable[Mapping[str, str]], *, say: Callable[[str], None] = lambda _: None
) -> AsyncIterator[Attempt]:
    """Run each row {id, code} as a step, and after it another step, which must give the right answer."""
    canary = Canary()
    async with canary.listening():
        for path in sorted(await canary.settle(IDLE_SECONDS)):
            say(f"{path} changes while no step runs: not watched")
        for row in rows:
            before, connections = canary.snapshot(), canary.num_connections
            start = time.monotonic()
            verdict, output, error = await _try(sandbox, canary.fill_in(row["code"]))
            seconds = time.monotonic() - start
            start = time.monotonic()
            _, alive, _ = await _try(sandbox, "import math\nprint(math.gcd(12, 18))")
            escapes = canary.escapes(before, connections, output + error)
            if alive != "6":
                escapes.append("the next step was disturbed")
            yield Attempt(row["id"], verdict, escapes, error, seconds, time.monotonic() - start)


async def _try(sandbox: Sandbox, code: str) -> tuple[str, str, str]:
    """Verdict, output and error of one step."""
    try:
        execution = await sandbox.run(None, code)
    except SandboxLost as lost:
        return "sandbox_lost", "", str(lost)
    if execution.checkpoint:
        await sandbox.release(execution.checkpoint)
    return execution.verdict.value, execution.output, execution.error


def _changed(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> set[str]:
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def _walk(folder: Path, depth: int) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(OURS) or entry.name in ("__pycache__", ".cache", "proc", "runs"):
                continue
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    found[entry.path] = (0, 0)
                    if depth > 1:
                        found |= _walk(Path(entry.path), depth - 1)
                else:
                    found[entry.path] = _state(Path(entry.path))
    return found


def _state(path: Path) -> tuple[int, int]:
    with contextlib.suppress(OSError):
        about = path.lstat()
        return about.st_size, about.st_mtime_ns
    return -1, -1
