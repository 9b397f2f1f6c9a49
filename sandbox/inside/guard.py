"""An audit hook that raises Forbidden when a step does something forbidden. It gives clear verdicts, not protection.

Code can bypass Python's own checks (ctypes, native extensions). The protection comes from `sandbox.inside.isolation`
and the resource limits.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence

FORBIDDEN_EVENTS = frozenset(
    {
        *(
            "os.exec",
            "os.fork",
            "os.forkpty",
            "os.posix_spawn",
            "os.spawn",
            "os.system",
            "subprocess.Popen",
            "pty.spawn",
        ),
        *("os.kill", "os.killpg", "ctypes.dlsym", "sys.addaudithook"),
        *("socket.bind", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"),
    }
)
PATH_EVENTS = frozenset(
    {
        *("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink"),
        *("os.truncate", "os.utime", "shutil.rmtree"),
    }
)
TIMERS = ("alarm", "setitimer")  # their signal would arrive later, in code that is not the step's
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Forbidden(BaseException):
    """Raised at a forbidden action. Not an Exception, so that `except Exception` in the step does not catch it."""


class Guard:
    """Armed while a step's code runs. Keeps the first violation, even if the step catches the error."""

    def __init__(self, work: str, *, wanted: bool = True) -> None:
        self._wanted = wanted
        self.armed = False
        self.violation = ""
        self._inside = (f"{os.path.realpath(work)}/",)  # the folders that a step may write in
        sys.addaudithook(self._hook)
        if wanted:
            for name in TIMERS:
                setattr(signal, name, self._refuse(f"signal.{name}"))

    def _refuse(self, name: str) -> Callable[..., None]:
        """A replacement for a function that has no audit event. The system call filter refuses it too."""

        def refused(*_: object) -> None:
            self.violation = self.violation or name
            raise Forbidden(name)

        return refused

    def keep_in(self, folders: Sequence[str]) -> None:
        """Set the folders that a step may write in; they must be real paths."""
        self._inside = tuple(f"{folder}/" for folder in folders)

    def arm(self) -> None:
        self.violation, self.armed = "", self._wanted

    def disarm(self) -> None:
        self.armed = False

    def _hook(self, event: str, arguments: tuple) -> None:
        if self.armed and self._forbids(event, arguments):
            name = event if event in FORBIDDEN_EVENTS else f"{event} outside the step's folder"
            self.violation = self.violation or name
            raise Forbidden(name)

    def _forbids(self, event: str, arguments: tuple) -> bool:
        if event in FORBIDDEN_EVENTS:
            return True
        if event == "open":
            return bool(arguments[2] & WRITING) and not self._is_inside(arguments[0])
        return event in PATH_EVENTS and not all(
            self._is_inside(path) for path in arguments if isinstance(path, str | bytes)
        )

    def _is_inside(self, path: object) -> bool:
        if not isinstance(path, str | bytes):
            return True  # an open descriptor was checked when it was opened
        real = os.path.realpath(os.fsdecode(path))
        return real == os.devnull or f"{real}/".startswith(self._inside)
