"""The fork server: owns the kept interpreters and watches one step at a time. Runs as a process of its own.

Requests and reports are JSON lines on standard input and output. The server itself never runs a step's code and keeps
no opinion: it reports how a step ended, and `sandbox.verdicts` says what that means.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sandbox.folders import exceeds, fresh_name, remove
from sandbox.guard import Guard
from sandbox.interpreter import HEADER, MAX_VARIABLES_BYTES, Interpreter, receive, send
from sandbox.isolation import IN_CONTAINER, deny_system_calls, enter_namespaces, keep_private, limit_resources
from sandbox.rehearsal import rehearse

START_SECONDS = 60.0  # a root imports its modules in this time
GRACE_SECONDS = 5.0  # to fork
SWEEPS, SWEEP_SECONDS = 200, 0.002
STATUSES = frozenset({"ok", "exception", "memory", "forbidden"})
MAX_ERROR_CHARS, MAX_DEPTH = 2000, 16
CREDENTIALS = struct.Struct("3i")  # process, user, group
MAX_ENTRIES = 1000  # files and folders that a trajectory has in its folder
ROOTS = ("root", "root-warm")
WORN_SHARE = 0.5  # of the work folder's file system; what no step in charge of it holds is not given back


@dataclass(frozen=True, slots=True)
class Process:
    """A kept interpreter as the server sees it."""

    pid: int
    channel: socket.socket
    folder: Path
    born: bytes | None  # when, so that its number given to another is not taken for it; None: /proc is another's

    def is_there(self) -> bool:
        return self.born is None or (self.born != b"" and born(self.pid) == self.born)

    def kill(self) -> None:
        known = self.born is None or born(self.pid) in (b"", self.born)  # a dead leader's group keeps its number
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
    """Frames that come over a channel, whoever writes them: of a bounded size, and never waited for."""

    def __init__(self, channel: socket.socket, max_bytes: int) -> None:
        channel.setblocking(False)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.pid = 0  # of the first sender, by the kernel's word
        self.born = b""  # when it was
        self._channel = channel
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def read(self) -> bool:
        """Take what there is; False at the end."""
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
        """The next frame once it is there as a whole; one that is too large is an empty one."""
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
        """The next frame; None where the channel ends or time is up before it came."""
        while (frame := self.frame()) is None:
            ready = readable([self._channel.fileno()], deadline - time.monotonic())
            if not ready or time.monotonic() > deadline or not self.read():
                return None
        return frame


class Server:
    """Answers `root` and `run` requests, see those methods; either may name interpreters to `drop` first."""

    def __init__(
        self, work: Path, limits: dict, isolation: dict[str, bool], roots: dict[str, Process], *, in_container: bool
    ) -> None:
        self._work = work
        self._in_container = in_container
        self._limits = limits
        self._isolation = isolation
        self._processes = dict(roots)
        self._oom_kills = oom_kills()

    def root(self, request: dict) -> dict:
        """Have a root import `modules`: the parent of first steps. One that ended comes back with another server."""
        process = self._processes.get(request["id"])
        if process is None:
            return {"ending": "unstarted"}
        self._rouse(process)
        process.channel.settimeout(START_SECONDS)
        try:
            send(process.channel, {"modules": request["modules"]})
            ready, _ = receive(process.channel)
        except OSError:
            ready = None
        if ready is None:
            self.drop([request["id"]])
            return {"ending": "unstarted"}
        return {"ending": "finished"}

    def drop(self, keys: list[str]) -> None:
        for key in keys:
            if process := self._processes.pop(key, None):
                process.kill()

    def run(self, request: dict) -> dict:
        """Fork `parent`, run `codes` in the fork and keep it as `id` if all ran and its forks would share nothing."""
        report = self._run(request)
        swept = self._sweep()
        return report | {"worn": not swept or self._is_worn()}

    def _run(self, request: dict) -> dict:
        parent = self._processes.get(request["parent"])
        if parent is None:
            return {"ending": "parent_gone"}
        ours, theirs = socket.socketpair()
        reader, writer = os.pipe()
        folders, token = [self._work / fresh_name() for _ in request["codes"]], os.urandom(16).hex()
        folder, self._oom_kills = folders[-1], oom_kills()
        inbox = Inbox(ours, MAX_VARIABLES_BYTES + 12 * self._limits["output_bytes"] + 100_000)
        order = {"token": token, "folders": list(map(str, folders))} | {
            key: request[key] for key in ("codes", "seconds", "plain")
        }
        self._rouse(parent)
        try:
            parent.channel.settimeout(GRACE_SECONDS)
            send(parent.channel, order, (theirs.fileno(), writer))
        except OSError:  # it was killed from outside, or by a step
            self.drop([request["parent"]])
            ours.close()
            os.close(reader)
            return {"ending": "parent_gone"}
        finally:
            theirs.close()
            os.close(writer)
        try:
            report = self._watch(ours, inbox, reader, request, token)
        finally:
            os.close(reader)
        if report["ending"] in ("parent_gone", "unstarted"):
            ours.close()
            if inbox.pid and inbox.pid != parent.pid:
                self._process(inbox, ours, folder).kill()
            remove(str(folder), str(self._work))
            if report["ending"] == "parent_gone":
                self.drop([request["parent"]])
            return report
        process = self._process(inbox, ours, folder)
        if report.get("status") == "ok" and exceeds(
            str(folder), max_bytes=self._limits["file_bytes"], max_entries=MAX_ENTRIES
        ):
            report = {"ending": "folder_overflow", "output": report["output"], "seconds": report["seconds"]}
        if report.get("kept"):
            self._rest(process)
            unknown = self._work / fresh_name()
            folder.rename(unknown)  # what the step learnt of its folder's name is of no use to its siblings
            self._processes[request["id"]] = replace(process, folder=unknown)
        else:
            process.kill()
            for passed in folders[:-1]:
                remove(str(passed), str(self._work))
        self._rest(parent)
        return report

    def _process(self, inbox: Inbox, channel: socket.socket, folder: Path) -> Process:
        return Process(inbox.pid, channel, folder, inbox.born if tells_births(self._isolation) else None)

    def _rouse(self, process: Process) -> None:
        if self._isolation["processes"]:
            process.signal(signal.SIGCONT)

    def _rest(self, process: Process) -> None:
        """Stop a kept interpreter: whatever a step left in it runs only while a step continues it.

        Not where it would outlive a server that is killed.
        """
        if self._isolation["processes"]:
            process.signal(signal.SIGSTOP)

    def _watch(self, channel: socket.socket, inbox: Inbox, reader: int, request: dict, token: str) -> dict:
        """Follow one step to its end; return the report, which holds nothing unchecked that came from the step."""
        said = inbox.wait(time.monotonic() + GRACE_SECONDS)
        if said != b'{"born": true}' or not inbox.pid:
            return {"ending": "unstarted" if said and said.startswith(b'{"unstarted"') else "parent_gone"}
        start, inbox.born = time.monotonic(), born(inbox.pid)
        os.set_blocking(reader, False)
        max_bytes = self._limits["output_bytes"]  # only the last code prints
        ending, output, frame = self._collect(channel, inbox, reader, start + request["seconds"], max_bytes)
        if ending == "vanished" and (kills := oom_kills()) > self._oom_kills:
            ending, self._oom_kills = "out_of_memory", kills
        reply: dict = {}
        if ending == "finished":
            reply = checked_reply(frame, token, max_echo_chars=self._limits["output_bytes"] + 1)
            ending = "finished" if reply else "forged"
        text = bytes(output[:max_bytes]).decode("utf-8", errors="replace")
        seconds = time.monotonic() - start
        if len(request["codes"]) > 1:  # the last one's own, as far as it says so
            seconds = min(seconds, reply.get("seconds", seconds))
        return {**reply, "ending": ending, "output": text, "seconds": seconds}

    @staticmethod
    def _collect(
        channel: socket.socket, inbox: Inbox, reader: int, deadline: float, max_bytes: int
    ) -> tuple[str, bytearray, bytes]:
        output, waiting, is_open = bytearray(), [channel.fileno(), reader], True
        while (left := deadline - time.monotonic()) > 0:
            if (frame := inbox.frame()) is not None or not is_open:  # it may have come along with the one before it
                _read(reader, output, max_bytes)
                ending = "finished" if frame is not None else "vanished"
                return "output_overflow" if len(output) > max_bytes else ending, output, frame or b""
            ready = readable(waiting, left)
            if reader in ready and not _read(reader, output, max_bytes):
                waiting.remove(reader)  # closed by the step; the reply still comes
            if len(output) > max_bytes:
                return "output_overflow", output, b""
            if channel.fileno() in ready:
                is_open = inbox.read()
        return "timed_out", output, b""

    def _is_worn(self) -> bool:
        """Whether steps have left so much in the container's file system that the next one may not find room."""
        if not self._in_container:
            known = {process.folder.name for process in self._processes.values()}
            for name in os.listdir(self._work):  # noqa: PTH208
                if name not in known:
                    remove(str(self._work / name), str(self._work))
            return False
        state = os.statvfs(self._work)
        return state.f_bfree < WORN_SHARE * state.f_blocks or state.f_ffree < WORN_SHARE * state.f_files

    def _sweep(self) -> bool:
        """Kill what a step left behind beside its own process, and bury the dead; False where some of it stays."""
        known = {process.pid for process in self._processes.values() if process.is_there()} | {os.getpid()}
        for _ in range(SWEEPS):  # what is forked while the list is read is in the next one
            _bury()
            if not self._isolation["own_proc"]:
                return True
            strangers = {int(name) for name in os.listdir("/proc") if name.isdigit()} - known  # noqa: PTH208
            if not strangers:
                return True
            for pid in strangers:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(SWEEP_SECONDS)
        return False


def checked_reply(frame: bytes, token: str, *, max_echo_chars: int) -> dict:
    """What a step's reply says, as far as it is a reply: only known fields of their types; empty if it is none."""
    try:
        reply = json.loads(frame)
    except (ValueError, RecursionError, MemoryError):
        return {}
    if type(reply) is not dict or reply.get("token") != token:
        return {}
    status, error, echo, memory = (reply.get(key) for key in ("status", "error", "echo", "memory_bytes"))
    if [type(each) for each in (status, error, echo, memory)] != [str, str, str, int] or status not in STATUSES:
        return {}
    checked = {
        "status": status, "error": _encodable(error[:MAX_ERROR_CHARS]), "echo": _encodable(echo[:max_echo_chars]),
        "memory_bytes": min(max(memory, 0), 2**62), "kept": status == "ok" and reply.get("kept") is True,
    }  # fmt: skip
    if type(seconds := reply.get("seconds")) is float and seconds >= 0:
        checked["seconds"] = seconds
    variables = reply.get("variables")
    if type(variables) is dict and _is_shallow(variables):
        checked["variables"] = variables
    return checked


def _encodable(text: str) -> str:
    return text.encode("utf-8", errors="replace").decode()


def _is_shallow(value: object, depth: int = MAX_DEPTH) -> bool:
    """Whether the other side can read it however deep it stands itself."""
    if not isinstance(value, dict | list):
        return True
    items = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_shallow(item, depth - 1) for item in items)


def _bury() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def tells_births(isolation: dict[str, bool]) -> bool:
    """Whether /proc tells of this server's own processes."""
    return isolation["own_proc"] or not isolation["processes"]


def born(pid: int) -> bytes:
    """When a process started, as the kernel tells it; nothing where there is none, or it is dead and not yet buried."""
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
    """Those of the descriptors that can be read, or were closed at the other end, within `seconds`."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(max(0.0, seconds) * 1000)}


def oom_kills() -> int:
    """How many processes of this container the kernel killed for want of memory, as far as it says so."""
    for place in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with suppress(OSError):
            counts = dict(line.split() for line in Path(place).read_text().splitlines())
            return int(counts.get("oom_kill", 0))
    return 0


def _read(reader: int, output: bytearray, max_bytes: int) -> bool:
    """Take what the pipe holds; False at its end."""
    while len(output) <= max_bytes:
        try:
            chunk = os.read(reader, 1 << 16)
        except BlockingIOError:
            return True
        if not chunk:
            return False
        output += chunk
    return True


def fork_roots(work: Path, limits: dict, isolation: dict[str, bool]) -> dict[str, Process]:
    """Fork the parents of all first steps, before anything of a step has come to this process's memory."""
    roots = {}
    for name in ROOTS:
        ours, theirs = socket.socketpair()
        folder = work / fresh_name()
        folder.mkdir()
        pid = os.fork()
        if pid == 0:
            _become_root(theirs, folder, limits)
        theirs.close()
        roots[name] = Process(pid, ours, folder, born(pid) if tells_births(isolation) else None)
    return roots


def _become_root(channel: socket.socket, folder: Path, limits: dict) -> None:
    """Turn this fork of the server into an interpreter, once it is told what to import."""
    keep = channel.fileno()
    os.closerange(3, keep)
    os.closerange(keep + 1, 4096)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    os.setpgid(0, 0)
    os.chdir(folder)
    order, _ = receive(channel)
    if order is None:
        os._exit(0)
    for name in order["modules"]:
        with suppress(ImportError):
            importlib.import_module(name)
    rehearse()
    random.seed(0)  # so that a run is the same run tomorrow
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "sympy" in sys.modules:
        sys.modules["sympy"].core.random.seed(0)
    guard = Guard(str(folder.parent), wanted=limits["guarded"])
    interpreter = Interpreter(guard, max_echo_chars=limits["output_bytes"] + 1)
    limit_resources(
        memory_bytes=limits["memory_bytes"],
        file_bytes=limits["file_bytes"],
        num_open_files=limits["num_open_files"],
    )
    deny_system_calls()
    gc.collect()
    gc.freeze()  # so that a collection does not copy the pages shared with the parent
    send(channel, {"ready": True})
    interpreter.serve(channel)


def main() -> None:
    """Arguments: the work folder, the limits as JSON, and how to be isolated: namespaces, container or none."""
    work, limits, how = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
    sys.argv[1:] = []
    isolation = dict(IN_CONTAINER) if how == "container" else enter_namespaces(work, wanted=how == "namespaces")
    keep_private()
    roots = fork_roots(work, limits, isolation)
    server = Server(work, limits, isolation, roots, in_container=how == "container")
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    print(json.dumps({"isolation": isolation, "python": python}), file=reports, flush=True)
    for line in requests:
        request = json.loads(line)
        server.drop(request.pop("drop", []))
        answer = {"root": server.root, "run": server.run}[request.pop("op")]
        print(json.dumps(answer(request)), file=reports, flush=True)
    if how != "container":
        remove(str(work), str(work))  # the other side is gone, and may not have said so
