"""The connection to a running fork server: one line per request, one line per report."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from rstar.protocols import SandboxLost
from sandbox.inside.folders import remove
from sandbox.limits import Limits
from sandbox.owner import Owner, this_process

BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from sandbox.inside.server import main; del sys.path[0], sys.argv[1]; main()"
)
STARTUP_SECONDS = 60.0
PREFIX, OWNER = "rstar-sandbox-", "owner.json"  # prefix of the work folders, and the file in them that names the owner
MAX_LINE_BYTES = 64 * 2**20
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # so that a step always prints a set in the same order
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",  # an arena per thread would use up the limited address space
}


class Link(Protocol):
    """A started server. Its first line gives `isolation`, what the kernel granted, and its Python, such as "3.11"."""

    isolation: dict[str, bool]
    python: str

    @property
    def pid(self) -> int | None: ...

    @property
    def alive(self) -> bool: ...

    async def send(self, line: bytes) -> None:
        """Write one line; raises OSError if the server is gone."""

    async def receive(self) -> bytes:
        """Read one line; it has no line break if the server ended."""

    async def stop(self) -> None:
        """End the server and all its processes."""

    def last_words(self) -> str:
        """The last output of the server's log."""


class LocalLink:
    """A server that is a child of this process."""

    def __init__(self, process: asyncio.subprocess.Process, work: Path) -> None:
        self._process = process
        self._work = work
        self.isolation: dict[str, bool] = {}
        self.python = ""

    @classmethod
    async def start(cls, limits: Limits, *, namespaces: bool) -> LocalLink:
        await asyncio.to_thread(remove_abandoned)
        work = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            (work / OWNER).write_text(json.dumps(asdict(this_process())))
            link = cls(await cls._process_in(work, limits, namespaces=namespaces), work)
        except BaseException:
            remove(str(work), str(work))
            raise
        await hello(link)
        return link

    @staticmethod
    async def _process_in(work: Path, limits: Limits, *, namespaces: bool) -> asyncio.subprocess.Process:
        (work / "steps").mkdir()
        arguments = [str(Path(__file__).parent.parent), str(work / "steps"), json.dumps(asdict(limits))]
        environment = ENVIRONMENT | {"HOME": str(work / "steps"), "TMPDIR": str(work / "steps")}
        if "LD_LIBRARY_PATH" in os.environ:  # some Pythons do not start without it
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        with (work / "server.log").open("wb") as log:
            # Not -I, which would ignore PYTHONHASHSEED.
            return await asyncio.create_subprocess_exec(
                sys.executable, "-s", "-P", "-B", "-c", BOOT, *arguments, "namespaces" if namespaces else "none",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                env=environment, cwd=work / "steps", start_new_session=True, limit=MAX_LINE_BYTES,
            )  # fmt: skip

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def send(self, line: bytes) -> None:
        assert self._process.stdin
        self._process.stdin.write(line)
        await self._process.stdin.drain()

    async def receive(self) -> bytes:
        assert self._process.stdout
        return await self._process.stdout.readline()

    async def stop(self) -> None:
        if self._process.returncode is None:  # else its process id may have been reused
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        try:
            with suppress(ValueError):
                await self._process.communicate()
        finally:
            remove(str(self._work), str(self._work))

    def last_words(self) -> str:
        with suppress(OSError):
            return (self._work / "server.log").read_text(errors="replace").strip()
        return ""


def remove_abandoned() -> None:
    """Remove the work folders whose owner has ended."""
    for file in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{OWNER}"):
        with suppress(OSError, ValueError, TypeError):
            if file.stat().st_uid == os.geteuid() and Owner(**json.loads(file.read_text())).is_gone():
                remove(str(file.parent), str(file.parent))


async def hello(link: Link) -> None:
    """Wait for a started server's first line. If it does not come, stop the server and raise SandboxLost."""
    try:
        line = await asyncio.wait_for(link.receive(), STARTUP_SECONDS)
        said = json.loads(line)
        link.isolation, link.python = said["isolation"], said["python"]
    except (TimeoutError, OSError, ValueError, KeyError, TypeError):
        words = link.last_words()
        await link.stop()
        raise SandboxLost(f"the sandbox server did not start{last_line(words)}") from None
    except BaseException:
        await link.stop()
        raise


def last_line(words: str) -> str:
    return f": {words.splitlines()[-1][:200]}" if words else ""
