"""The roots: the interpreters that all first steps are forked from. They have imported what mathematical code uses."""

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
from sandbox.inside.processes import Process, born, shows_births
from sandbox.inside.rehearsal import rehearse

ROOTS = ("root", "root-warm")


def fork_roots(work: Path, limits: dict, isolation: dict[str, bool], *, filtered: bool) -> dict[str, Process]:
    """Fork the roots. This must happen before the server has read any step, so that their memory holds none."""
    roots = {}
    for name in ROOTS:
        ours, theirs = socket.socketpair()
        folder = work / fresh_name()
        folder.mkdir()
        pid = os.fork()
        if pid == 0:
            _become_root(theirs, folder, limits, filtered=filtered)
        theirs.close()
        roots[name] = Process(pid, ours, folder, born(pid) if shows_births(isolation) else None)
    return roots


def _become_root(channel: socket.socket, folder: Path, limits: dict, *, filtered: bool) -> None:
    """Wait for the list of modules to import, then turn this fork of the server into an interpreter.

    With `filtered` the process exits if the kernel refuses the system call filter.
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
    random.seed(0)  # so that the same steps give the same results in every run
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
    gc.freeze()  # so that a collection in a fork does not copy the pages it shares with this process
    send(channel, {"ready": True})
    interpreter.serve(channel)
