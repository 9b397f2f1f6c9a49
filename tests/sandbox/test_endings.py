"""A start that fails or is cancelled leaves no process, no container and no folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from rstar.protocols import SandboxLost
from sandbox import container, link
from sandbox.container import ContainerLink, DockerSandbox, remove_container
from sandbox.limits import Limits
from sandbox.link import LocalLink

LIMITS = Limits()


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the local provider makes its work folders."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


class Engine:
    """Starts containers that keep their connection open and send nothing."""

    def __init__(self) -> None:
        self.let_start = threading.Event()
        self.let_start.set()
        self.removed: list[str] = []
        self.ends: list[socket.socket] = []

    def run(self, *_: object) -> tuple[str, socket.socket]:
        self.let_start.wait(5)
        ours, theirs = socket.socketpair()
        self.ends.append(theirs)
        return f"container {len(self.ends)}", ours


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    made = Engine()
    monkeypatch.setattr(container, "run_container", made.run)
    monkeypatch.setattr(container, "remove_container", made.removed.append)
    yield made
    for end in made.ends:
        end.close()


async def cancelled(starting: asyncio.Task[Any]) -> None:
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting


async def test_a_container_whose_start_is_cancelled_is_removed(engine: Engine) -> None:
    starting = asyncio.create_task(ContainerLink.start(LIMITS))
    while not engine.ends:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)  # now it waits for the first line
    await cancelled(starting)
    assert engine.removed == ["container 1"]


async def test_a_container_that_starts_after_the_cancellation_is_removed(engine: Engine) -> None:
    engine.let_start.clear()
    starting = asyncio.create_task(ContainerLink.start(LIMITS))
    await asyncio.sleep(0.05)
    asyncio.get_running_loop().call_later(0.05, engine.let_start.set)
    await cancelled(starting)
    assert engine.removed == ["container 1"]


@pytest.mark.parametrize("said", [b"", b"{}\n", b"no JSON\n"])
async def test_a_container_that_sends_a_wrong_first_line_is_removed(engine: Engine, said: bytes) -> None:
    starting = asyncio.create_task(ContainerLink.start(LIMITS))
    while not engine.ends:
        await asyncio.sleep(0.01)
    if said:
        engine.ends[0].sendall(container.FRAME.pack(1, len(said)) + said)
    engine.ends[0].shutdown(socket.SHUT_WR)
    with pytest.raises(SandboxLost, match="did not start"):
        await starting
    assert engine.removed == ["container 1"]


async def test_if_one_server_does_not_start_the_others_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DockerSandbox, "_check", lambda _: None)
    sandbox = DockerSandbox(num_workers=3)
    closed = []
    for number, server in enumerate(sandbox._servers):

        async def start(number: int = number) -> None:
            if number == 1:
                raise SandboxLost("no container")

        async def aclose(number: int = number) -> None:
            closed.append(number)

        monkeypatch.setattr(server, "start", start)
        monkeypatch.setattr(server, "aclose", aclose)
    with pytest.raises(SandboxLost, match="no container"):
        await sandbox.prepare()
    assert closed == [0, 1, 2]


@pytest.mark.parametrize("error", [requests.exceptions.ReadTimeout, ConnectionResetError])
def test_an_engine_that_fails_at_a_removal_is_no_error(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Failing:
        @property
        def api(self) -> None:
            asked.append("api")
            raise error("gone")

    monkeypatch.setattr(container, "engine", lambda: contextlib.nullcontext(Failing()))
    remove_container("c")
    assert asked == ["api"]


async def test_a_local_server_whose_start_is_cancelled_is_killed(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "BOOT", "import time; time.sleep(60)")
    before = set(psutil.Process().children())
    starting = asyncio.create_task(LocalLink.start(LIMITS, namespaces=False))
    while not (children := set(psutil.Process().children()) - before):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    await cancelled(starting)
    assert not psutil.wait_procs(children, timeout=3)[1]
    assert not list(work.iterdir())


async def test_if_no_local_server_can_be_started_its_folder_is_removed(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link.sys, "executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError):
        await LocalLink.start(LIMITS, namespaces=False)
    assert not list(work.iterdir())


async def test_the_process_id_of_a_dead_server_is_not_signalled(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = await LocalLink.start(LIMITS, namespaces=False)
    os.kill(started.pid or 0, signal.SIGKILL)
    while started.alive:
        await asyncio.sleep(0.01)
    signalled: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda pid, _: signalled.append(pid))
    await started.stop()
    assert not signalled and not list(work.iterdir())
