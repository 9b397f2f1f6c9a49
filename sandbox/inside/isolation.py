"""What the server asks of the kernel: namespaces, a system call filter and resource limits. Linux only.

Most kernels grant namespaces without privilege. If the kernel refuses them, the server runs without and reports it.
Call `enter_namespaces` before any thread exists. `deny_system_calls` then restricts the processes that run steps: they
can no longer signal, trace or limit other processes, connect, execute programs or set timers.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import socket
import struct
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
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
CAPABILITY_VERSION_3 = 0x20080522
MADV_COLLAPSE, HUGE_PAGE = 25, 2**21

# What a container provides before the server starts.
IN_CONTAINER = {"processes": True, "network": True, "files": True, "own_proc": True}

libc = ctypes.CDLL(None, use_errno=True)


def enter_namespaces(work: Path, *, wanted: bool = True) -> dict[str, bool]:
    """Move the server into its own process, network, mount, IPC and user namespaces; return what the kernel granted.

    Keys: `processes` (killing the server kills all its descendants), `network` (there is no network), `files` (all but
    the work folder is read-only), `own_proc` (/proc shows only the server's own processes). The function returns in a
    child process; the calling process waits for that child and exits with it.
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


# By machine: the architecture's number in a filter, the system calls that no step needs, and those that a step needs
# with some arguments only.
DENIED = {
    "x86_64": (
        0xC000003E,
        {
            "kill": 62, "tkill": 200, "tgkill": 234, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297,
            "pidfd_send_signal": 424, "pidfd_open": 434, "pidfd_getfd": 438,
            "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "process_madvise": 440,
            "socket": 41, "connect": 42, "bind": 49, "listen": 50, "accept": 43, "accept4": 288,
            "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
            "unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161,
            "open_tree": 428, "move_mount": 429, "fsopen": 430, "mount_setattr": 442, "open_by_handle_at": 304,
            "execve": 59, "execveat": 322, "setsid": 112, "personality": 135, "memfd_create": 319,
            "keyctl": 250, "add_key": 248, "request_key": 249, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
            "setitimer": 38, "alarm": 37, "timer_create": 222, "timerfd_create": 283, "signalfd": 282, "signalfd4": 289,
            "mq_open": 240, "mq_unlink": 241, "setpriority": 141, "ioprio_set": 251, "setsockopt": 54,
            "sched_setparam": 142, "sched_setscheduler": 144, "sched_setaffinity": 203, "sched_setattr": 314,
        },
        {"clone": 56, "prlimit64": 302, "fcntl": 72, "ioctl": 16, "socketpair": 53},
    ),
    "aarch64": (
        0xC00000B7,
        {
            "kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240,
            "pidfd_send_signal": 424, "pidfd_open": 434, "pidfd_getfd": 438,
            "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "process_madvise": 440,
            "socket": 198, "connect": 203, "bind": 200, "listen": 201, "accept": 202, "accept4": 242,
            "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
            "unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51,
            "open_tree": 428, "move_mount": 429, "fsopen": 430, "mount_setattr": 442, "open_by_handle_at": 265,
            "execve": 221, "execveat": 281, "setsid": 157, "personality": 92, "memfd_create": 279,
            "keyctl": 219, "add_key": 217, "request_key": 218, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282,
            "setitimer": 103, "timer_create": 107, "timerfd_create": 85, "signalfd4": 74,
            "mq_open": 180, "mq_unlink": 181, "setpriority": 140, "ioprio_set": 30, "setsockopt": 208,
            "sched_setparam": 118, "sched_setscheduler": 119, "sched_setaffinity": 122, "sched_setattr": 274,
        },
        {"clone": 220, "prlimit64": 261, "fcntl": 25, "ioctl": 29, "socketpair": 199},
    ),
}  # fmt: skip
X32_BIT, CLONE3 = 0x40000000, 435
CLONE_NEW_ANYTHING = 0x7E020000
# By call: the argument's position, and the values by which the caller could have the kernel signal other processes.
REFUSED_VALUES = {
    "fcntl": (1, (8, 10, 15, 1024, 1026)),  # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY
    "ioctl": (1, (0x8901, 0x8902, 0x5412)),  # FIOSETOWN, SIOCSPGRP, TIOCSTI
}
BPF_LOAD, BPF_JUMP_EQUAL, BPF_JUMP_AT_LEAST, BPF_JUMP_ANY_BIT, BPF_RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
SECCOMP_MODE_FILTER, SECCOMP_ALLOW, SECCOMP_ERRNO, SECCOMP_KILL = 2, 0x7FFF0000, 0x00050000, 0x80000000


def deny_system_calls() -> bool:
    """Install a filter that refuses DENIED to the calling process and its forks, for good.

    Returns False if the kernel refuses the filter or the machine is not in DENIED. Needs `no_new_privs`.
    """
    keep_private()
    if platform.machine() not in DENIED:
        return False
    architecture, denied, narrowed = DENIED[platform.machine()]
    refuse, unknown = SECCOMP_ERRNO | errno.EPERM, SECCOMP_ERRNO | errno.ENOSYS
    program = [
        (BPF_LOAD, 0, 0, 4), (BPF_JUMP_EQUAL, 1, 0, architecture), (BPF_RETURN, 0, 0, SECCOMP_KILL),
        (BPF_LOAD, 0, 0, 0), (BPF_JUMP_AT_LEAST, 0, 1, X32_BIT), (BPF_RETURN, 0, 0, refuse),
        (BPF_JUMP_EQUAL, 0, 1, CLONE3), (BPF_RETURN, 0, 0, unknown),  # the C library then falls back to clone
    ]  # fmt: skip
    for number in denied.values():
        program += [(BPF_JUMP_EQUAL, 0, 1, number), (BPF_RETURN, 0, 0, refuse)]
    allow = (BPF_RETURN, 0, 0, SECCOMP_ALLOW)
    for name, number in narrowed.items():
        argument, values = REFUSED_VALUES.get(name, (0, ()))
        # The kernel reads these arguments as 32 bits, so compare the lower half of the 64 that the filter sees.
        checks = [(BPF_LOAD, 0, 0, 16 + 8 * argument)]
        if name == "prlimit64":  # only the caller's own limits
            checks += [(BPF_JUMP_EQUAL, 1, 0, 0), (BPF_RETURN, 0, 0, refuse)]
        if name == "socketpair":  # another family could make the kernel load a module
            checks += [(BPF_JUMP_EQUAL, 1, 0, socket.AF_UNIX), (BPF_RETURN, 0, 0, refuse)]
        if name == "clone":
            checks += [(BPF_JUMP_ANY_BIT, 0, 1, CLONE_NEW_ANYTHING), (BPF_RETURN, 0, 0, refuse)]
        for value in values:
            checks += [(BPF_JUMP_EQUAL, 0, 1, value), (BPF_RETURN, 0, 0, refuse)]
        program += [(BPF_JUMP_EQUAL, 0, len(checks) + 1, number), *checks, allow]
    program.append(allow)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in program))
    header = struct.pack("@HP", len(program), ctypes.addressof(code))
    return libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(header), 0, 0) == 0


def use_huge_pages() -> None:
    """Collapse this process's memory into huge pages if the kernel can. Forks then copy and free fewer page tables."""
    for line in Path("/proc/self/maps").read_bytes().split(b"\n"):
        addresses, mode, _, _, inode, *_ = *line.split(), *[b""] * 5
        if (mode, inode) != (b"rw-p", b"0"):
            continue
        start, end = (int(address, 16) for address in addresses.split(b"-"))
        for address in range(-(-start // HUGE_PAGE) * HUGE_PAGE, end - HUGE_PAGE + 1, HUGE_PAGE):
            libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(HUGE_PAGE), MADV_COLLAPSE)


def keep_private() -> None:
    """Keep other processes of the same user from reading the memory and descriptors of this process and its forks."""
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def limit_resources(*, memory_bytes: int, file_bytes: int, num_open_files: int) -> None:
    """Set limits for this process and its forks. The memory limit is on top of what the process has mapped now."""
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
    """Set whether the kernel kills this process when its parent ends."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL if wanted else 0, 0, 0, 0)


def _unshare(flags: int) -> None:
    uid, gid = os.getuid(), os.getgid()
    _check(libc.unshare(flags))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _continue_as_init() -> None:
    """Fork into the new process namespace. The parent waits for the child; each ends when the other one ends."""
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
    os.chdir(work)  # the old working directory is hidden under the bind mount


def _mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind)]
    _check(libc.mount(*encoded, ctypes.c_ulong(flags), None))


def _set_mount_attributes(path: str, flags: int, *, set_: int = 0, clear: int = 0) -> None:
    attributes = (ctypes.c_uint64 * 4)(set_, clear, 0, 0)
    _check(libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, ctypes.byref(attributes), 32))


def _drop_capabilities() -> None:
    """Drop all capabilities. The creator of a namespace has them all in it, and could undo the mounts."""
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
    """Try the action in a child process first, because a half-made namespace cannot be undone."""
    child = os.fork()
    if child == 0:
        os._exit(0 if _succeeds(action) else 1)
    return os.waitpid(child, 0)[1] == 0
