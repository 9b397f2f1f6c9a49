"""Worker processes for Math-Verify, started when first needed, killed and replaced when they take too long.

Each thread of a small pool owns one worker, so that any thread or event loop may ask. A time-out is counted in CPU
seconds by the kernel (see verify_worker.py): a busy machine does not turn right answers into wrong ones.
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
    """The processes that compare answers cannot be started, or keep dying before they are asked anything."""


@dataclass(slots=True)
class VerifyCounts:
    """What became of the questions put to the workers."""

    asked: int = 0
    timed_out: int = 0  # twice
    crashed: int = 0  # the worker died twice over the same question
    started: int = 0  # worker processes


class _Died(Exception):
    """The worker went away instead of answering."""

    def __init__(self, returncode: int | None) -> None:
        super().__init__(returncode)
        self.timed_out = returncode in (-signal.SIGPROF, -signal.SIGALRM, None)


class _Worker:
    """One process and its two pipes."""

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

    def ask(self, op: str, args: tuple[str, ...], timeout_s: float) -> bool:
        request = json.dumps({"op": op, "args": args, "timeout": timeout_s}) + "\n"
        left = memoryview(request.encode("ascii"))
        assert self._process.stdin is not None
        try:
            while left:
                left = left[os.write(self._process.stdin.fileno(), left) :]
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
        """Kill the process; whoever waits for its reply sees the pipe close."""
        self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        self.end()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class VerifyPool:
    """Asks `num_workers` processes; every question has a hard time-out."""

    def __init__(self, *, timeout_s: float = 3.0, num_workers: int = 2) -> None:
        self.counts = VerifyCounts()
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(num_workers, thread_name_prefix="math-verify")
        self._own = threading.local()
        self._workers: set[_Worker] = set()
        self._lock = threading.Lock()
        self._alone = threading.Lock()  # held while a question is asked for the second time
        self._closed = False

    def submit(self, op: str, *args: str) -> Future[bool | None]:
        """Ask "equal" of two answers, or "parseable" of one.

        None: a fresh worker timed out or died over the question too, asked alone.
        """
        return self._threads.submit(self._ask, op, args)

    def _ask(self, op: str, args: tuple[str, ...]) -> bool | None:
        with self._lock:
            self.counts.asked += 1
        worker = self._worker()
        try:
            return worker.ask(op, args, self._timeout_s)
        except _Died:
            self._drop(worker)
        with self._alone:
            worker = self._worker()
            try:
                return worker.ask(op, args, self._timeout_s)
            except _Died as died:
                self._drop(worker)
                with self._lock:
                    self.counts.timed_out += died.timed_out
                    self.counts.crashed += not died.timed_out
                return None

    def _worker(self) -> _Worker:
        worker: _Worker | None = getattr(self._own, "worker", None)
        if worker is None and not self._closed:
            worker = self._own.worker = _Worker()
            with self._lock:
                self.counts.started += 1
                self._workers.add(worker)
        if worker is None or self._closed:
            raise JudgeError("the judge was closed while it was comparing answers")
        return worker

    def _drop(self, worker: _Worker) -> None:
        self._own.worker = None
        with self._lock:
            self._workers.discard(worker)
        worker.kill()

    def close(self) -> None:
        """End the workers; questions still waiting are cancelled."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            worker.end()
        self._threads.shutdown(wait=True)
        for worker in self._workers:
            worker.kill()
