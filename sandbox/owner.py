"""The owner of a container or work folder, recorded so that a later run can remove what a killed one left."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sandbox.inside.processes import born


@dataclass(frozen=True, slots=True)
class Owner:
    """A process: its id and start time, and the boot and PID namespace in which that id is unique."""

    pid: str
    started: str
    boot: str
    namespace: str

    def is_gone(self) -> bool | None:
        """Whether the process has ended; None if it belongs to another boot, machine or PID namespace."""
        here = this_process()
        if (self.boot, self.namespace) != (here.boot, here.namespace) or not self.pid.isdigit():
            return None
        return born(int(self.pid)).decode() != self.started


def this_process() -> Owner:
    return Owner(str(os.getpid()), born(os.getpid()).decode(), *_place())


@lru_cache(maxsize=1)
def _place() -> tuple[str, str]:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return boot, str(Path("/proc/self/ns/pid").stat().st_ino)
