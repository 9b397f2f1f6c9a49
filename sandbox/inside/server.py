"""The fork server: a process that owns the kept interpreters and runs one step at a time.

Requests and reports are JSON lines on standard input and output. The server never runs a step's code itself. It reports
how a step ended; `sandbox.verdicts` turns that into a verdict.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from sandbox.inside.folders import exceeds, fresh_name, remove
from sandbox.inside.interpreter import MAX_VARIABLES_BYTES, receive, send
from sandbox.inside.isolation import IN_CONTAINER, enter_namespaces, keep_private
from sandbox.inside.processes import Inbox, Process, born, oom_kills, readable, reap, shows_births
from sandbox.inside.replies import checked_reply
from sandbox.inside.roots import ROOTS, fork_roots

START_SECONDS = 60.0  # for a root to import its modules
GRACE_SECONDS = 5.0  # for an interpreter to fork
SWEEPS, SWEEP_SECONDS = 200, 0.002
MAX_ENTRIES = 1000  # files and folders in a trajectory's folder
LAST_CODE = b'{"last": true}'  # the frame that an interpreter sends before it runs the last code
REQUESTS = 0  # the file descriptor of the requests
WORN_SHARE = 0.5  # of the work folder's file system: if less is free after a step, the container must be replaced


class Server:
    """Answers `root` and `run` requests; see those methods. A request may also name interpreters to `drop` first."""

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
        """Have a root import `modules`. A root that has ended is not replaced; that takes a new server."""
        process = self._processes.get(request["id"])
        if process is None:
            return {"ending": "unstarted"}
        self._resume(process)
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
        """Fork `parent` and run `codes` in the fork. Keep it as `id` if all ran well and its forks share no state."""
        report = self._run(request)
        if report["ending"] == "unstarted" and request["parent"] not in ROOTS:  # a step may have forged it
            self.drop([request["parent"]])
            report = {"ending": "parent_gone"}
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
        self._resume(parent)
        try:
            parent.channel.settimeout(GRACE_SECONDS)
            send(parent.channel, order, (theirs.fileno(), writer))
        except OSError:  # something outside, or a step, killed the parent
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
            self._suspend(process)
            unknown = self._work / fresh_name()
            try:
                folder.rename(unknown)  # so that no step knows the folder's name any more
                self._processes[request["id"]] = replace(process, folder=unknown)
            except OSError:  # a process that the step left behind removed the folder
                report = {"ending": "forged", "output": report["output"], "seconds": report["seconds"]}
        if not report.get("kept"):
            process.kill()
            for passed in folders[:-1]:
                remove(str(passed), str(self._work))
        self._suspend(parent)
        return report

    def _process(self, inbox: Inbox, channel: socket.socket, folder: Path) -> Process:
        return Process(inbox.pid, channel, folder, inbox.born if shows_births(self._isolation) else None)

    def _resume(self, process: Process) -> None:
        if self._isolation["processes"]:
            process.signal(signal.SIGCONT)

    def _suspend(self, process: Process) -> None:
        """Stop a kept interpreter with SIGSTOP, so that nothing a step left in it goes on running.

        Only in a process namespace: elsewhere a stopped process would outlive a killed server.
        """
        if self._isolation["processes"]:
            process.signal(signal.SIGSTOP)

    def _watch(self, channel: socket.socket, inbox: Inbox, reader: int, request: dict, token: str) -> dict:
        """Follow one step to its end and return the report. All that it holds from the step has been checked."""
        said = inbox.wait(time.monotonic() + GRACE_SECONDS)
        if said != b'{"born": true}' or not inbox.pid:
            return {"ending": "unstarted" if said and said.startswith(b'{"unstarted"') else "parent_gone"}
        start, inbox.born = time.monotonic(), born(inbox.pid)
        os.set_blocking(reader, False)
        max_bytes = self._limits["output_bytes"]  # only the last code prints
        deadline, repeats = start + request["seconds"], len(request["codes"]) > 1
        last = self._limits["seconds"] if repeats else None
        ending, output, frame, reached = self._collect(channel, inbox, reader, deadline, max_bytes, last)
        if ending == "vanished" and (kills := oom_kills()) > self._oom_kills:
            ending, self._oom_kills = "out_of_memory", kills
        reply: dict = {}
        if ending == "finished":
            reply = checked_reply(frame, token, max_echo_chars=self._limits["output_bytes"] + 1)
            ending = "finished" if reply else "forged"
        text = bytes(output[:max_bytes]).decode("utf-8", errors="replace")
        seconds = time.monotonic() - start
        if repeats:  # report the time of the last code only: its own figure, or else since it began
            seconds = min(seconds, reply.get("seconds", time.monotonic() - reached if reached else seconds))
        return {**reply, "ending": ending, "output": text, "seconds": seconds, "reached": bool(reached)}

    @staticmethod
    def _collect(
        channel: socket.socket, inbox: Inbox, reader: int, deadline: float, max_bytes: int, last_seconds: float | None
    ) -> tuple[str, bytearray, bytes, float]:
        """Return how the step ended, its output, its reply, and when the last code began (0.0 if it did not).

        With `last_seconds` the last code has its own time limit, from when it begins.
        """
        output, waiting, is_open, reached = bytearray(), [channel.fileno(), reader], True, 0.0
        while (left := deadline - time.monotonic()) > 0:
            frame = inbox.frame()  # an earlier read may have brought it
            if frame == LAST_CODE and last_seconds is not None and not reached:
                reached = time.monotonic()
                deadline = min(deadline, reached + last_seconds)
                continue
            if frame is not None or not is_open:
                _read(reader, output, max_bytes)
                ending = "finished" if frame is not None else "vanished"
                return "output_overflow" if len(output) > max_bytes else ending, output, frame or b"", reached
            ready = readable([*waiting, REQUESTS], left)
            if REQUESTS in ready:  # no request comes while a step runs, so this is the end of file: the owner is gone
                return "abandoned", output, b"", reached
            if reader in ready and not _read(reader, output, max_bytes):
                waiting.remove(reader)  # the step closed its output; wait for the reply
            if len(output) > max_bytes:
                return "output_overflow", output, b"", reached
            if channel.fileno() in ready:
                is_open = inbox.read()
        return "timed_out", output, b"", reached

    def _is_worn(self) -> bool:
        """Whether steps have left so much in the container's file system that the next one may lack space.

        On the host, remove the files that belong to no process instead.
        """
        if not self._in_container:
            known = {process.folder.name for process in self._processes.values()}
            for name in os.listdir(self._work):  # noqa: PTH208
                if name not in known:
                    remove(str(self._work / name), str(self._work))
            return False
        state = os.statvfs(self._work)
        return state.f_bfree < WORN_SHARE * state.f_blocks or state.f_ffree < WORN_SHARE * state.f_files

    def _sweep(self) -> bool:
        """Kill the processes that a step left behind, and reap dead children; False if some processes remain."""
        known = {process.pid for process in self._processes.values() if process.is_there()} | {os.getpid()}
        for _ in range(SWEEPS):  # a process forked during one listing appears in the next
            reap()
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


def _read(reader: int, output: bytearray, max_bytes: int) -> bool:
    """Read the data in the pipe; False at its end."""
    while len(output) <= max_bytes:
        try:
            chunk = os.read(reader, 1 << 16)
        except BlockingIOError:
            return True
        if not chunk:
            return False
        output += chunk
    return True


def main() -> None:
    """Run the server. Arguments: the work folder, the limits as JSON, and `namespaces`, `container` or `none`."""
    work, limits, how = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
    sys.argv[1:] = []
    isolation = dict(IN_CONTAINER) if how == "container" else enter_namespaces(work, wanted=how == "namespaces")
    keep_private()
    roots = fork_roots(work, limits, isolation, filtered=how == "container")
    server = Server(work, limits, isolation, roots, in_container=how == "container")
    requests = os.fdopen(os.dup(REQUESTS), "r", encoding="utf-8")
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    print(json.dumps({"isolation": isolation, "python": python}), file=reports, flush=True)
    for line in requests:
        request = json.loads(line)
        server.drop(request.pop("drop", []))
        answer = {"root": server.root, "run": server.run}[request.pop("op")]
        try:
            print(json.dumps(answer(request)), file=reports, flush=True)
        except BrokenPipeError:
            break
    if how != "container":
        remove(str(work), str(work))  # the owner may have been killed before it could remove the folder
