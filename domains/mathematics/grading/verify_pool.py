"""Worker processes for Math-Verify: started when first needed, replaced when they take too long or die.

Each thread of a small pool owns one worker, so that any thread or event loop may send requests. The kernel counts the
time limit in CPU seconds (see verify_worker.py), so comparisons do not time out because the machine is busy.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rstar.protocols import InfrastructureError

START_SECONDS = 120.0
_WORKER = Path(__file__).with_name("verify_worker.py")


class JudgeError(InfrastructureError):
    """The worker processes cannot be started, or the judge was closed during a comparison."""


@dataclass(slots=True)
class VerifyCounts:
    """The requests to the workers and their outcomes."""

    num_requests: int = 0
    num_timeouts: int = 0  # requests that timed out twice
    num_crashes: int = 0  # requests over which a worker died twice
    num_started: int = 0  # worker processes


class _Died(Exception):
    """The worker died or timed out instead of answering."""

    def __init__(self, returncode: int | None) -> None:
        super().__init__(returncode)
        self.timed_out = returncode in (-signal.SIGPROF, -signal.SIGALRM, None)


class _Worker:
    """A worker process and its two pipes."""

    def __init__(self) -> None:
        env = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", PYTHONUTF8="1")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
            bufsize=0,
        )
        try:
            self._read_line(START_SECONDS)
        except _Died as died:
            self.kill()
            raise JudgeError("Math-Verify's worker process did not start; is math-verify installed?") from died

    def request(self, op: str, args: tuple[str, ...], timeout_s: float) -> bool:
        """Send a request and wait for its reply. Raises `_Died`."""
        line = json.dumps({"op": op, "args": args, "timeout": timeout_s}) + "\n"
        remaining = memoryview(line.encode("ascii"))
        assert self._process.stdin is not None
        try:
            while remaining:
                remaining = remaining[os.write(self._process.stdin.fileno(), remaining) :]
        except OSError:
            raise _Died(self._process.wait()) from None
        return json.loads(self._read_line(10 * timeout_s + 10)) is True

    def _read_line(self, seconds: float) -> bytes:
        pipe = self._process.stdout
        assert pipe is not None
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        deadline = time.monotonic() + seconds
        line = b""
        while not line.endswith(b"\n"):
            if not poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
                raise _Died(None)
            chunk = pipe.read(4096)
            if not chunk:
                raise _Died(self._process.wait())
            line += chunk
        return line

    def end(self) -> None:
        """Kill the process. A thread that waits for its reply sees the pipe close."""
        self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """Kill the process and close its pipes."""
        self.end()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class VerifyPool:
    """Sends requests to `num_workers` processes, each request with a hard time limit."""

    def __init__(self, *, timeout_s: float = 3.0, num_workers: int = 2) -> None:
        self.counts = VerifyCounts()
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(num_workers, thread_name_prefix="math-verify")
        self._local = threading.local()  # holds the worker of each thread
        self._workers: set[_Worker] = set()
        self._lock = threading.Lock()
        self._retrying = threading.Lock()  # only one request is retried at a time
        self._closed = False

    def submit(self, op: str, *args: str) -> Future[bool | None]:
        """Request "equal" of two answers, or "parseable" of one.

        The result is None if the request failed twice, the second time with a new worker.
        """
        return self._threads.submit(self._request, op, args)

    def _request(self, op: str, args: tuple[str, ...]) -> bool | None:
        with self._lock:
            self.counts.num_requests += 1
        worker = self._worker()
        try:
            return worker.request(op, args, self._timeout_s)
        except _Died:
            self._drop(worker)
        with self._retrying:
            worker = self._worker()
            try:
                return worker.request(op, args, self._timeout_s)
            except _Died as died:
                self._drop(worker)
                with self._lock:
                    self.counts.num_timeouts += died.timed_out
                    self.counts.num_crashes += not died.timed_out
                return None

    def _worker(self) -> _Worker:
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None and not self._closed:
            worker = self._local.worker = _Worker()
            with self._lock:
                self.counts.num_started += 1
                self._workers.add(worker)
        if worker is None or self._closed:
            raise JudgeError("the judge was closed while it was comparing answers")
        return worker

    def _drop(self, worker: _Worker) -> None:
        self._local.worker = None
        with self._lock:
            self._workers.discard(worker)
        worker.kill()

    def close(self) -> None:
        """End the workers. Waiting requests are cancelled."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            worker.end()
        self._threads.shutdown(wait=True)
        for worker in self._workers:
            worker.kill()
