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
import shutil
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox.guard import Guard
from sandbox.interpreter import Interpreter, receive, send
from sandbox.isolation import IN_CONTAINER, deny_system_calls, enter_namespaces, keep_private, limit_resources
from sandbox.rehearsal import rehearse

START_SECONDS = 60.0  # a root imports its modules in this time
GRACE_SECONDS = 5.0  # to fork
SWEEPS, SWEEP_SECONDS = 200, 0.002


@dataclass(frozen=True, slots=True)
class Process:
    """A kept interpreter as the server sees it."""

    pid: int
    channel: socket.socket
    folder: Path

    def kill(self) -> None:
        for kill in (os.killpg, os.kill):
            with suppress(ProcessLookupError, PermissionError):
                kill(self.pid, signal.SIGKILL)
        self.channel.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Server:
    """Answers `root` and `run` requests, see those methods; either may name interpreters to `drop` first."""

    def __init__(self, work: Path, limits: dict, isolation: dict[str, bool]) -> None:
        self._work = work
        self._limits = limits
        self._isolation = isolation
        self._processes: dict[str, Process] = {}
        self._oom_kills = oom_kills()

    def root(self, request: dict) -> dict:
        """Fork an interpreter that has imported `modules` and run nothing: the parent of first steps."""
        ours, theirs = socket.socketpair()
        folder = self._work / request["id"]
        folder.mkdir()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _become_root(theirs, folder, request["modules"], self._work, self._limits)
        theirs.close()
        ours.settimeout(START_SECONDS)
        ready, _ = receive(ours)
        process = Process(pid, ours, folder)
        if ready is None:
            process.kill()
            return {"ending": "unstarted"}
        self._processes[request["id"]] = process
        return {"ending": "finished"}

    def drop(self, keys: list[str]) -> None:
        for key in keys:
            if process := self._processes.pop(key, None):
                process.kill()

    def run(self, request: dict) -> dict:
        """Fork `parent`, run `codes` in the fork and keep it as `id` if all of them ran."""
        parent = self._processes[request["parent"]]
        ours, theirs = socket.socketpair()
        reader, writer = os.pipe()
        folder, token = self._work / request["id"], os.urandom(16).hex()
        try:
            parent.channel.settimeout(GRACE_SECONDS)
            send(
                parent.channel,
                {"token": token, "folder": str(folder)}
                | {name: request[name] for name in ("codes", "seconds", "plain")},
                (theirs.fileno(), writer),
            )
        except OSError:  # it was killed from outside, or by a step
            self.drop([request["parent"]])
            ours.close()
            os.close(reader)
            return {"ending": "parent_gone"}
        finally:
            theirs.close()
            os.close(writer)
        report, pid = self._watch(ours, reader, request)
        if report["ending"] == "finished" and report.pop("token", None) != token:
            report = {"ending": "forged", "seconds": report["seconds"]}
        os.close(reader)
        process = Process(pid, ours, folder)
        if report.get("status") == "ok" and report["ending"] == "finished":
            self._processes[request["id"]] = process
        elif pid:
            process.kill()
        else:
            ours.close()
            if report["ending"] == "parent_gone":
                self.drop([request["parent"]])
        self._sweep()
        return report

    def _watch(self, channel: socket.socket, reader: int, request: dict) -> tuple[dict, int]:
        """Follow one step to its end; return the report and the process id (0 if the fork never came to be)."""
        channel.settimeout(GRACE_SECONDS)
        try:
            born, _ = receive(channel)
        except OSError:
            born = None
        if born is None or "pid" not in born:
            return {"ending": "parent_gone" if born is None else "unstarted"}, 0
        start = time.monotonic()
        os.set_blocking(reader, False)
        max_bytes = self._limits["output_bytes"] * len(request["codes"])
        ending, output, reply = self._collect(channel, reader, start + request["seconds"], max_bytes)
        if ending == "vanished" and oom_kills() > self._oom_kills:
            ending, self._oom_kills = "out_of_memory", oom_kills()
        text = bytes(output[:max_bytes]).decode("utf-8", errors="replace")
        report = {"ending": ending, "output": text, "seconds": time.monotonic() - start, **reply}
        return report, int(born["pid"])

    @staticmethod
    def _collect(channel: socket.socket, reader: int, deadline: float, max_bytes: int) -> tuple[str, bytearray, dict]:
        output, waiting = bytearray(), [channel, reader]
        while True:
            ready, _, _ = select.select(waiting, [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return "timed_out", output, {}
            if reader in ready and not _read(reader, output, max_bytes):
                waiting.remove(reader)  # closed by the step; the reply still comes
            if len(output) > max_bytes:
                return "output_overflow", output, {}
            if channel in ready:
                channel.settimeout(max(0.1, deadline - time.monotonic()))
                try:
                    reply, _ = receive(channel)
                except (OSError, ValueError):
                    reply = None
                _read(reader, output, max_bytes)
                ending = "output_overflow" if len(output) > max_bytes else "finished" if reply else "vanished"
                return ending, output, reply or {}

    def _sweep(self) -> None:
        """Kill what a step left behind beside its own process, and bury the dead."""
        known = {process.pid for process in self._processes.values()} | {os.getpid()}
        for _ in range(SWEEPS):  # what is forked while the list is read is in the next one
            _bury()
            if not self._isolation["own_proc"]:
                return
            strangers = {int(name) for name in os.listdir("/proc") if name.isdigit()} - known  # noqa: PTH208
            if not strangers:
                return
            for pid in strangers:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(SWEEP_SECONDS)


def _bury() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


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


def _become_root(channel: socket.socket, folder: Path, modules: list[str], work: Path, limits: dict) -> None:
    """Turn this fork of the server into an interpreter that has nothing of the server's."""
    keep = channel.fileno()
    os.closerange(3, keep)
    os.closerange(keep + 1, 4096)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    os.setpgid(0, 0)
    os.chdir(folder)
    for name in modules:
        with suppress(ImportError):
            importlib.import_module(name)
    rehearse()
    random.seed(0)  # so that a run is the same run tomorrow
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    guard = Guard(str(work), wanted=limits["guarded"])
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
    server = Server(work, limits, isolation)
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    print(json.dumps({"isolation": isolation}), file=reports, flush=True)
    for line in requests:
        request = json.loads(line)
        server.drop(request.pop("drop", []))
        answer = {"root": server.root, "run": server.run}[request.pop("op")]
        print(json.dumps(answer(request)), file=reports, flush=True)
    shutil.rmtree(work, ignore_errors=True)  # the other side is gone, and may not have said so
