"""The parents of all first steps: forks of the fork server that have imported what mathematical code uses."""

from __future__ import annotations

import gc
import importlib
import os
import random
import socket
import sys
from contextlib import suppress
from pathlib import Path

from sandbox.inside.folders import fresh_name
from sandbox.inside.guard import Guard
from sandbox.inside.interpreter import Interpreter, receive, send
from sandbox.inside.isolation import deny_system_calls, limit_resources, use_huge_pages
from sandbox.inside.processes import Process, born, tells_births
from sandbox.inside.rehearsal import rehearse

ROOTS = ("root", "root-warm")


def fork_roots(work: Path, limits: dict, isolation: dict[str, bool], *, filtered: bool) -> dict[str, Process]:
    """Fork the parents of all first steps, before anything of a step has come to this process's memory."""
    roots = {}
    for name in ROOTS:
        ours, theirs = socket.socketpair()
        folder = work / fresh_name()
        folder.mkdir()
        pid = os.fork()
        if pid == 0:
            _become_root(theirs, folder, limits, filtered=filtered)
        theirs.close()
        roots[name] = Process(pid, ours, folder, born(pid) if tells_births(isolation) else None)
    return roots


def _become_root(channel: socket.socket, folder: Path, limits: dict, *, filtered: bool) -> None:
    """Turn this fork of the server into an interpreter, once it is told what to import.

    With `filtered` it ends where the kernel does not take the system call filter.
    """
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
    if not deny_system_calls() and filtered:
        os._exit(1)
    gc.collect()
    use_huge_pages()
    gc.freeze()  # so that a collection does not copy the pages shared with the parent
    send(channel, {"ready": True})
    interpreter.serve(channel)
