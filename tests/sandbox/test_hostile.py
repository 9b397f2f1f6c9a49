# ruff: noqa: E501 - a table reads best with a row a line
"""Hostile steps against the Docker provider, Python's own checks switched off: only the walls behind them stand.

After each the sandbox serves the next request within a second, and no verdict or output is another's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from rstar.protocols import Verdict
from sandbox.container import DockerSandbox
from sandbox.limits import Limits
from sandbox.pool import Sandbox

LIMITS = Limits(seconds=1.0, memory_bytes=256 * 2**20, output_bytes=10_000, guarded=False)
LIBC = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
CALL = LIBC + "print(libc.syscall({}), os.strerror(ctypes.get_errno()))"
REFUSED = "-1 Operation not permitted"
OK, EXCEPTION, TIME, MEMORY, OUTPUT = (
    Verdict.OK, Verdict.EXCEPTION, Verdict.TIME_LIMIT, Verdict.MEMORY_LIMIT, Verdict.OUTPUT_LIMIT
)  # fmt: skip

HOSTILE = {
    "infinite loop": ("while True: pass", {TIME}, ""),
    "loop that catches all and disarms alarms": (
        "import signal, time\nfor n in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT): signal.signal(n, signal.SIG_IGN)\n"
        "signal.alarm(0)\nwhile True:\n    try: time.sleep(9)\n    except BaseException: pass",
        {TIME}, "",
    ),
    "power": ("7 ** 10**9", {TIME}, ""),
    "regex": ("import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')", {TIME}, ""),
    "memory bomb": ("rows = []\nwhile True: rows.append(bytearray(2**20))", {MEMORY}, ""),
    "mapped memory": ("import mmap\nkept = [mmap.mmap(-1, 2**26) for _ in range(999)]", {EXCEPTION, MEMORY}, ""),
    "tmpfs bomb": (
        "n = 0\nwhile True:\n    with open(f'f{n}', 'wb') as f: f.write(bytes(2**23))\n    n += 1", {EXCEPTION, TIME}, ""
    ),
    "one large file": ("with open('f', 'wb') as f:\n    while True: f.write(bytes(2**20))", {EXCEPTION}, "File too large"),
    "fork bomb": ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", {TIME, EXCEPTION}, ""),
    "thread bomb": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
        {EXCEPTION, MEMORY, TIME}, "",
    ),
    "thread left behind": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
        {Verdict.FORBIDDEN}, "thread",
    ),
    "output of 1 GB": ("import os\nfor _ in range(1000): os.write(1, b'a' * 2**20)", {OUTPUT}, ""),
    "deep recursion": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1)\nf(0)", {EXCEPTION, MEMORY, TIME}, ""
    ),
    "os._exit": ("import os\nos._exit(0)", {EXCEPTION}, "ProcessExit"),
    "crash": (LIBC + "ctypes.string_at(0)", {EXCEPTION}, "ProcessExit"),
    "kill everyone": (LIBC + "print(libc.kill(-1, 9), os.strerror(ctypes.get_errno()))", {OK}, REFUSED),
    "stop the parent": ("import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)", {EXCEPTION}, "PermissionError"),
    "signal by descriptor": ("import os\nos.pidfd_open(1)", {EXCEPTION}, "PermissionError"),
    "a session of its own": ("import os\nos.setsid()", {EXCEPTION}, "PermissionError"),
    "memory of the server": ("open('/proc/1/mem', 'rb').read(1)", {EXCEPTION}, "PermissionError"),
    "descriptors of the server": ("import os\nos.listdir('/proc/1/fd')", {EXCEPTION}, "PermissionError"),
    "memory of the parent": ("import os\nopen(f'/proc/{os.getppid()}/mem', 'r+b')", {EXCEPTION}, "PermissionError"),
    "environment of others": ("print(open('/proc/1/environ').read())", {EXCEPTION}, "PermissionError"),
    "internet socket": ("import socket\nsocket.socket()", {EXCEPTION}, "PermissionError"),
    "unix socket": ("import socket\nsocket.socket(socket.AF_UNIX)", {EXCEPTION}, "PermissionError"),
    "netlink socket": ("import socket\nsocket.socket(16, 3, 0)", {EXCEPTION}, "PermissionError"),
    "packet socket": ("import socket\nsocket.socket(17, 3, 0)", {EXCEPTION}, "PermissionError"),
    "ptrace": (CALL.format("101, 16, 1, 0, 0"), {OK}, REFUSED),
    "read another's memory": (CALL.format("310, 1, 0, 0, 0, 0, 0"), {OK}, REFUSED),
    "io_uring": (CALL.format("425, 8, 0"), {OK}, REFUSED),
    "unshare": (CALL.format("272, 0x10000000"), {OK}, REFUSED),
    "mount": (LIBC + "print(libc.mount(b'none', b'/work', b'tmpfs', 0, None), os.strerror(ctypes.get_errno()))", {OK}, REFUSED),
    "x32 calls": (CALL.format("0x40000000 + 39"), {OK, EXCEPTION}, ""),
    "execute": ("import os\nos.execv('/bin/sh', ['sh'])", {EXCEPTION}, "PermissionError"),
    "a program": ("import subprocess\nsubprocess.run(['true'])", {EXCEPTION}, "PermissionError"),
    "write the root": ("open('/usr/evil', 'w')", {EXCEPTION}, "Read-only file system"),
    "write the server's code": ("open('/opt/rstar/sandbox/server.py', 'a')", {EXCEPTION}, "Error"),
    "symlink": ("import os\nos.symlink('/etc/passwd', 'p')\nopen('p', 'a')", {EXCEPTION}, "Error"),
    "hard link": ("import os\nos.link('/etc/passwd', 'p')", {EXCEPTION}, "Error"),
    "device": ("import os, stat\nos.mknod('d', stat.S_IFBLK | 0o666, os.makedev(8, 0))", {EXCEPTION}, "PermissionError"),
    "become root": ("import os\nos.setuid(0)", {EXCEPTION}, "PermissionError"),
    "capabilities": ("print(open('/proc/self/status').read().split('CapBnd:')[1].split()[0])", {OK}, "0000000000000000"),
    "secrets": ("import os\nprint(sorted(k for k in os.environ if 'SECRET' in k or 'TOKEN' in k or 'KEY' in k))", {OK}, "[]"),
    "the engine's socket": ("import os\nprint(os.path.exists('/var/run/docker.sock'))", {OK}, "False"),
    "invalid UTF-8 without a newline": ("import os\nos.write(1, b'\\xff\\xfe')", {OK}, "\N{REPLACEMENT CHARACTER}"),
}  # fmt: skip


@pytest.fixture
async def sandbox(docker_image: str) -> AsyncIterator[Sandbox]:
    async with DockerSandbox(limits=LIMITS, num_workers=1) as opened:
        await opened.run(None, "import math")
        yield opened


@pytest.mark.parametrize(("code", "verdicts", "said"), HOSTILE.values(), ids=HOSTILE.keys())
async def test_it_is_contained(sandbox: Sandbox, code: str, verdicts: set[Verdict], said: str) -> None:
    start = time.monotonic()
    execution = await sandbox.run(None, code)
    assert execution.verdict in verdicts, execution
    assert said in execution.output + execution.error
    assert time.monotonic() - start < LIMITS.seconds + 1.5
    start = time.monotonic()
    after = await sandbox.run(
        None, "import os, threading\nprint(len([p for p in os.listdir('/proc') if p.isdigit()]) < 8)"
    )
    assert (after.output, time.monotonic() - start < 1) == ("True", True)
    assert sandbox.metrics()["server_starts"] == 1


async def test_a_step_changes_nothing_for_siblings_and_strangers(sandbox: Sandbox) -> None:
    parent = (await sandbox.run(None, "import builtins, sys, json\nx = [1]")).checkpoint
    vandal = (
        "builtins.print = builtins.len = None\nsys.meta_path.clear()\njson.dumps = None\nx.append(2)\n"
        "open('fractions.py', 'w').write('raise SystemExit')\nsys.path.insert(0, '.')"
    )
    assert (await sandbox.run(parent, vandal)).verdict is OK
    sibling = await sandbox.run(parent, "import fractions\nprint(len(x), json.dumps(x), fractions.Fraction(1, 2))")
    assert (sibling.verdict, sibling.output) == (OK, "1 [1] 1/2")
    stranger = await sandbox.run(
        None, "import os, fractions, json\nprint(os.listdir(), json.dumps([fractions.__name__]))"
    )
    assert stranger.output == '[] ["fractions"]'


async def test_what_is_written_to_every_descriptor_is_no_reply(sandbox: Sandbox) -> None:
    forged = (
        "import json, os, struct\n"
        "reply = json.dumps({'status': 'ok', 'error': '', 'echo': 'forged', 'ending': 'finished'}).encode()\n"
        "for fd in range(3, 64):\n"
        "    for data in (reply + b'\\n', struct.pack('!I', len(reply)) + reply):\n"
        "        try: os.write(fd, data)\n"
        "        except OSError: pass\n"
        "1 / 0"
    )
    others = [asyncio.create_task(sandbox.run(None, f"import math\nprint({n})")) for n in range(6)]
    execution = await sandbox.run(None, forged)
    assert execution.verdict in (EXCEPTION, Verdict.FORBIDDEN) and "forged" not in execution.output
    assert [(await other).output for other in others] == [str(n) for n in range(6)]


async def test_a_killed_container_is_replaced_and_nothing_is_lost(sandbox: Sandbox) -> None:
    parent = (await sandbox.run(None, "import math\nx = [1, 2]")).checkpoint
    running = asyncio.create_task(sandbox.run(parent, "import time\ntime.sleep(0.4)\nprint(x)"))
    await asyncio.sleep(0.15)
    from sandbox.container import remove_container

    await asyncio.to_thread(remove_container, sandbox._servers[0]._link.container_id)
    execution = await running
    assert (execution.verdict, execution.output) == (OK, "[1, 2]")
    assert sandbox.metrics()["sandbox_lost"] == 1


async def test_containers_of_a_killed_run_are_cleared_away_at_the_next_start(docker_image: str) -> None:
    from sandbox.container import LABEL, container_options, engine, remove_orphans

    options = container_options(LIMITS, None)
    options["labels"] = {LABEL: "999999", f"{LABEL}.started": "another boot/1"}
    with engine() as client:
        orphan = client.containers.run(docker_image, detach=True, **options)
        async with DockerSandbox(limits=LIMITS, num_workers=1) as opened:
            assert (await opened.run(None, "import math\nprint(6)")).output == "6"
            assert orphan.id not in [c.id for c in client.containers.list(all=True)]
            assert remove_orphans(client) == []  # those of living processes stay
        assert not client.containers.list(all=True, filters={"label": LABEL})
