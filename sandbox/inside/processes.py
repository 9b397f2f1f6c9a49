"""The fork server's view of the processes that run steps: their identity, their messages and their end."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox.inside.folders import remove
from sandbox.inside.interpreter import HEADER

CREDENTIALS = struct.Struct("3i")  # process, user, group


@dataclass(frozen=True, slots=True)
class Process:
    """A kept interpreter as the server sees it."""

    pid: int
    channel: socket.socket
    folder: Path
    born: bytes | None  # start time, which detects a reused process id; None if /proc does not show this process

    def is_there(self) -> bool:
        return self.born is None or (self.born != b"" and born(self.pid) == self.born)

    def kill(self) -> None:
        known = self.born is None or born(self.pid) in (b"", self.born)  # the group of a dead leader keeps its id
        for kill in (os.killpg, os.kill) if known else ():
            with suppress(ProcessLookupError, PermissionError):
                kill(self.pid, signal.SIGKILL)
        self.channel.close()
        remove(str(self.folder), str(self.folder.parent))

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if self.is_there():
                os.kill(self.pid, number)


class Inbox:
    """Reads frames from a channel that a step may write to. Frames are bounded, and reading never blocks."""

    def __init__(self, channel: socket.socket, max_bytes: int) -> None:
        channel.setblocking(False)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.pid = 0  # of the first sender, as the kernel reports it
        self.born = b""  # its start time
        self._channel = channel
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def read(self) -> bool:
        """Read the available data; False at the end of the channel."""
        try:
            data, ancillary, _, _ = self._channel.recvmsg(1 << 16, socket.CMSG_SPACE(CREDENTIALS.size))
        except BlockingIOError:
            return True
        except OSError:
            return False
        for level, kind, value in ancillary:
            if (level, kind, len(value)) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, CREDENTIALS.size):
                self.pid = self.pid or CREDENTIALS.unpack(value)[0]
        self._buffer += data
        return bool(data)

    def frame(self) -> bytes | None:
        """The next frame, or None if it is incomplete. A frame over the size limit is returned as an empty one."""
        if len(self._buffer) < HEADER.size:
            return None
        (size,) = HEADER.unpack_from(self._buffer)
        if size > self._max_bytes:
            return b""
        if len(self._buffer) < HEADER.size + size:
            return None
        frame = bytes(self._buffer[HEADER.size : HEADER.size + size])
        del self._buffer[: HEADER.size + size]
        return frame

    def wait(self, deadline: float) -> bytes | None:
        """Wait for the next frame; None if the channel ends or the deadline passes first."""
        while (frame := self.frame()) is None:
            ready = readable([self._channel.fileno()], deadline - time.monotonic())
            if not ready or time.monotonic() > deadline or not self.read():
                return None
        return frame


def reap() -> None:
    """Collect the exit status of all children that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def shows_births(isolation: dict[str, bool]) -> bool:
    """Whether /proc shows this server's own processes."""
    return isolation["own_proc"] or not isolation["processes"]


def born(pid: int) -> bytes:
    """The start time of a process, as the kernel reports it; empty if there is none, or if it is a zombie."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return b""
    try:
        state, *fields = os.read(descriptor, 4096).rpartition(b")")[2].split()
        return b"" if state in b"ZX" else fields[18]
    except (OSError, ValueError, IndexError):
        return b""
    finally:
        os.close(descriptor)


def readable(descriptors: list[int], seconds: float) -> set[int]:
    """The descriptors that become readable, or are closed at the other end, within `seconds`."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(max(0.0, seconds) * 1000)}


def oom_kills() -> int:
    """The number of processes that the out-of-memory killer ended in this container; 0 if the kernel does not say."""
    for place in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with suppress(OSError):
            counts = dict(line.split() for line in Path(place).read_text().splitlines())
            return int(counts.get("oom_kill", 0))
    return 0
