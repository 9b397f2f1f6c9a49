"""What the pool does with any kind of server: turns, retries, versions, closing."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from collections.abc import Hashable
from typing import Any

import pytest

from rstar.protocols import SandboxLost, Verdict
from sandbox.fair import sharing
from sandbox.limits import Limits
from sandbox.link import hello
from sandbox.local import LocalSandbox
from sandbox.pool import PYTHON, Sandbox


class Canned:
    """A link that sends its first line and nothing else."""

    def __init__(self, python: str = PYTHON) -> None:
        self.isolation: dict[str, bool] = {}
        self.python = ""
        self.pid = None
        self.alive = True
        self._first = json.dumps({"isolation": {}, "python": python}).encode() + b"\n"

    async def send(self, line: bytes) -> None: ...

    async def receive(self) -> bytes:
        line, self._first = self._first, b""
        return line

    async def stop(self) -> None:
        await asyncio.sleep(0.01)
        self.alive = False

    def last_words(self) -> str:
        return ""


class Pool(Sandbox):
    def protections(self) -> str:
        return ""


async def lost(limits: Limits) -> Any:
    raise SandboxLost("no server")


def pool(launch: Any = lost, num_retries: int = 0, num_workers: int = 1) -> Pool:
    return Pool(launch, limits=Limits(num_retries=num_retries), num_workers=num_workers)


async def test_a_step_waits_in_the_group_of_its_context_or_else_of_its_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[Hashable] = []
    sandbox = pool()

    async def run(*_: object, group: Hashable, **__: object) -> None:
        groups.append(group)
        raise SandboxLost("seen")

    monkeypatch.setattr(sandbox._servers[0], "run", run)
    parent = (await sandbox.run(None, "x = 1")).checkpoint
    for turn, checkpoint in ((None, None), (None, parent), ("item", None), ("item", parent)):
        token = sharing.set(turn)
        with pytest.raises(SandboxLost):
            await sandbox.run(checkpoint, "import math")
        sharing.reset(token)
    assert groups == ["c1", parent, "item", "item"]


async def test_each_retry_waits_longer_than_the_one_before() -> None:
    start = time.monotonic()
    with pytest.raises(SandboxLost):
        await pool(num_retries=2).run(None, "import math")
    assert 0.6 <= time.monotonic() - start < 2


async def test_an_error_without_a_message_is_named_by_its_type(caplog: pytest.LogCaptureFixture) -> None:
    class Silent(Canned):
        async def send(self, line: bytes) -> None:
            raise TimeoutError

    async def launch(limits: Limits) -> Silent:
        return Silent()

    with caplog.at_level(logging.WARNING, logger="sandbox"), pytest.raises(SandboxLost, match=r"^TimeoutError$"):
        await pool(launch).run(None, "import math")
    assert [record.message for record in caplog.records] == ["the sandbox died (attempt 1 of 1): TimeoutError"]


@pytest.mark.parametrize(("python", "num_fast"), [(PYTHON, 1), ("2.7", 0)])
async def test_with_another_python_on_the_servers_there_is_no_fast_path(
    python: str, num_fast: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def launch(limits: Limits) -> Canned:
        link = Canned(python)
        await hello(link)
        return link

    with caplog.at_level(logging.WARNING, logger="sandbox"):
        async with pool(launch) as sandbox:
            assert [record.message for record in caplog.records] == [
                f"no fast path: steps run on Python {python}, this process on {PYTHON}"
            ] * (1 - num_fast)
            if num_fast:
                assert (await sandbox.run(None, "1 + 1")).verdict is Verdict.OK
            else:
                with pytest.raises(SandboxLost):
                    await sandbox.run(None, "1 + 1")
            assert sandbox.metrics()["fast_path"] == num_fast


async def test_if_one_server_fails_to_close_the_others_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    links: list[Canned] = []

    async def launch(limits: Limits) -> Canned:
        links.append(Canned())
        return links[-1]

    async def fail() -> None:
        raise RuntimeError("does not stop")

    sandbox = pool(launch, num_workers=3)
    await asyncio.gather(*(server.start() for server in sandbox._servers))
    monkeypatch.setattr(links[0], "stop", fail)
    with pytest.raises(RuntimeError, match="does not stop"):
        await sandbox.aclose()
    assert [link.alive for link in links] == [True, False, False]


async def test_a_step_has_address_space_for_threads() -> None:
    code = "from concurrent.futures import ThreadPoolExecutor as P\nwith P(8) as p: print(sum(p.map(len, ['ab'] * 64)))"
    async with LocalSandbox(num_workers=1) as sandbox:
        execution = await sandbox.run(None, code)
    assert (execution.verdict, execution.output) == (Verdict.OK, "128")


async def test_a_closed_sandbox_runs_no_step_and_code_must_be_text() -> None:
    async with LocalSandbox(num_workers=1) as sandbox:
        with pytest.raises(TypeError, match="the code of a step is text, not bytes"):
            await sandbox.run(None, b"x = 1")  # type: ignore[arg-type]
    for code in ("x = 1", "x = [1]"):
        with pytest.raises(SandboxLost, match="the sandbox is closed"):
            await sandbox.run(None, code)


def test_limits_of_zero_or_less_are_refused() -> None:
    for name in ("seconds", "memory_bytes", "num_checkpoints"):
        with pytest.raises(ValueError, match=f"limits: {name} is 0"):
            Limits(**{name: 0})
    with pytest.raises(ValueError, match="num_retries is -1"):
        Limits(num_retries=-1)
    with pytest.raises(ValueError, match="0 workers"):
        LocalSandbox(num_workers=0)


def test_memory_is_collapsed_into_huge_pages_if_the_kernel_can() -> None:
    code = """
import mmap
from pathlib import Path
from sandbox.inside.isolation import HUGE_PAGE, use_huge_pages
field = mmap.mmap(-1, 4 * HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
field[:] = b"x" * len(field)
use_huge_pages()
assert field[:] == b"x" * len(field)
print(*[line.split()[1] for line in Path("/proc/self/smaps_rollup").read_text().splitlines() if "AnonHuge" in line])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended
    if int(ended.stdout) == 0:
        pytest.skip("this kernel has no MADV_COLLAPSE")
    assert int(ended.stdout) >= 3 * 2**11
