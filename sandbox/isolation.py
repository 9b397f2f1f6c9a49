"""What the kernel is asked for when a fork server starts. Linux, standard library only; runs in the server.

Namespaces need no privilege on most kernels; where one is refused the server runs without it and says so. Call
`enter_namespaces` first of all, before any thread exists.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x20000,
    0x8000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
MS_BIND, MS_REC, MS_PRIVATE, MS_NOSUID_NODEV_NOEXEC = 0x1000, 0x4000, 0x40000, 0xE
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
CAPABILITY_VERSION_3 = 0x20080522

# What a container gives before the server starts.
IN_CONTAINER = {"processes": True, "network": True, "files": True, "own_proc": True}

libc = ctypes.CDLL(None, use_errno=True)


def enter_namespaces(work: Path, *, wanted: bool = True) -> dict[str, bool]:
    """Give the server processes, network, files and users of its own; return what took.

    Keys: `processes` (killing the server kills every process it ever made), `network` (there is none), `files` (all
    but the work folder is read-only). Returns in a child of the calling process, which only waits for it.
    """
    flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS
    isolated = wanted and _succeeds_in_child(lambda: _unshare(flags))
    if isolated:
        _unshare(flags)
        _continue_as_init()
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    files = isolated and _succeeds(lambda: _make_read_only_except(work))
    own_proc = isolated and _succeeds(lambda: _mount("proc", "/proc", "proc", MS_NOSUID_NODEV_NOEXEC))
    if isolated:
        _drop_capabilities()
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return {"processes": isolated, "network": isolated, "files": files, "own_proc": own_proc}


def limit_resources(*, memory_bytes: int, file_bytes: int, num_open_files: int) -> None:
    """Set the calling process's limits, inherited by its forks; memory counts on top of what it has mapped now."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for limit, value in [
        (resource.RLIMIT_AS, mapped + memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, num_open_files),
        (resource.RLIMIT_CORE, 0),
    ]:
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def die_with_parent(wanted: bool) -> None:
    """Whether the calling process is killed when the one that forked it ends."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL if wanted else 0, 0, 0, 0)


def _unshare(flags: int) -> None:
    uid, gid = os.getuid(), os.getgid()
    _check(libc.unshare(flags))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _continue_as_init() -> None:
    """Fork into the new process namespace; the calling process waits and dies with its child, and the reverse."""
    child = os.fork()
    if child:
        for descriptor in (0, 1):
            os.close(descriptor)
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    die_with_parent(True)


def _make_read_only_except(work: Path) -> None:
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    _mount(str(work), str(work), None, MS_BIND)
    _set_mount_attributes("/", AT_RECURSIVE, set_=MOUNT_ATTR_RDONLY)
    _set_mount_attributes(str(work), 0, clear=MOUNT_ATTR_RDONLY)
    os.chdir(work)  # the folder we stood in lies below the bind mount


def _mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind)]
    _check(libc.mount(*encoded, ctypes.c_ulong(flags), None))


def _set_mount_attributes(path: str, flags: int, *, set_: int = 0, clear: int = 0) -> None:
    attributes = (ctypes.c_uint64 * 4)(set_, clear, 0, 0)
    _check(libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, ctypes.byref(attributes), 32))


def _drop_capabilities() -> None:
    """The namespace's creator holds all capabilities inside it, with which it could undo the mounts."""
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    _check(libc.capset(ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)())))


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _succeeds(action: Callable[[], None]) -> bool:
    try:
        action()
    except OSError as error:
        print(f"isolation: {error}", file=sys.stderr)
        return False
    return True


def _succeeds_in_child(action: Callable[[], None]) -> bool:
    """Try in a process that can be thrown away: half of a namespace is worse than none."""
    child = os.fork()
    if child == 0:
        os._exit(0 if _succeeds(action) else 1)
    return os.waitpid(child, 0)[1] == 0
