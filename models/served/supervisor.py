"""Runs a server as a child process that ends with this process, and with the process that started this one.

    python -I supervisor.py PARENT_PID COMMAND...

When the parent ends (even by SIGKILL), this process ends (by SIGTERM) or the server ends, the server's whole process
group is ended. After a SIGUSR1, which says that the server is ready, a server that ends is started again on the same
port. Imports the standard library only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from types import FrameType

LOOK_SECONDS = 0.2
END_SECONDS = 10.0  # between SIGTERM and SIGKILL
MIN_RUN_SECONDS = 10.0  # a server that ends sooner is not started again
PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> int:
    """Return the server's exit status, or 0 if it was told to end."""
    told_to_end = ready = False

    def end(signum: int, frame: FrameType | None) -> None:
        nonlocal told_to_end
        told_to_end = True

    def note_ready(signum: int, frame: FrameType | None) -> None:
        nonlocal ready
        ready = True

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, end)
    signal.signal(signal.SIGUSR1, note_ready)
    libc = ctypes.CDLL(None)
    while True:
        began = time.monotonic()
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0),
        )
        while server.poll() is None and not told_to_end and os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        status = server.returncode
        end_group(server)
        if status is None:
            return 0
        if not ready or time.monotonic() - began < MIN_RUN_SECONDS:
            return status if status > 0 else 1
        print(f"the server ended with {status}; it is started again", flush=True)


def end_group(server: subprocess.Popen[bytes]) -> None:
    """End the server and all that it started: SIGTERM, then SIGKILL for what still runs."""
    until = time.monotonic() + END_SECONDS
    try:
        os.killpg(server.pid, signal.SIGTERM)
        while time.monotonic() < until:
            server.poll()
            os.killpg(server.pid, 0)
            time.sleep(LOOK_SECONDS)
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    server.wait()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
