# ruff: noqa: E501 - the table of steps has one row per line
"""Hostile steps on the Docker provider, with the audit hook off, so that only the kernel's protections are left.

After each, the sandbox answers the next request within a second, and each step gets its own verdict and output.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator

import pytest

from rstar.protocols import Verdict
from sandbox.container import WORK, DockerSandbox
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
    "x32 calls": (CALL.format("0x40000000 + 39"), {EXCEPTION}, "ProcessExit"),  # the outer filter kills
    "a pair of other sockets": (CALL.format("53, 29, 1, 0, 0"), {OK}, REFUSED),
    "execute": ("import os\nos.execv('/bin/sh', ['sh'])", {EXCEPTION}, "PermissionError"),
    "a program": ("import subprocess\nsubprocess.run(['true'])", {EXCEPTION}, "PermissionError"),
    "write the root": ("open('/usr/evil', 'w')", {EXCEPTION}, "Read-only file system"),
    "write the server's code": ("open('/opt/rstar/sandbox/inside/server.py', 'a')", {EXCEPTION}, "Error"),
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
async def test_a_hostile_step_is_contained(sandbox: Sandbox, code: str, verdicts: set[Verdict], said: str) -> None:
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


async def test_a_step_changes_nothing_for_siblings_and_other_trees(sandbox: Sandbox) -> None:
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


async def test_data_written_to_every_descriptor_is_no_reply(sandbox: Sandbox) -> None:
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


async def test_a_killed_container_is_replaced_and_no_step_is_lost(sandbox: Sandbox) -> None:
    parent = (await sandbox.run(None, "import math\nx = [1, 2]")).checkpoint
    running = asyncio.create_task(sandbox.run(parent, "import time\ntime.sleep(0.4)\nprint(x)"))
    await asyncio.sleep(0.15)
    from sandbox.container import remove_container

    await asyncio.to_thread(remove_container, sandbox._servers[0]._link.container_id)
    execution = await running
    assert (execution.verdict, execution.output) == (OK, "[1, 2]")
    assert sandbox.metrics()["sandbox_lost"] == 1


async def test_containers_of_a_killed_run_are_removed_at_the_next_start(docker_image: str) -> None:
    from sandbox.container import LABEL, container_options, engine, remove_orphans

    options = container_options(LIMITS, None)
    options["labels"] |= {LABEL: "999999", f"{LABEL}.started": "1"}
    with engine() as client:
        orphan = client.containers.run(docker_image, detach=True, **options)
        async with DockerSandbox(limits=LIMITS, num_workers=1) as opened:
            assert (await opened.run(None, "import math\nprint(6)")).output == "6"
            assert orphan.id not in [c.id for c in client.containers.list(all=True)]
            living = {"label": f"{LABEL}={os.getpid()}"}
            mine = {each.id for each in client.containers.list(filters=living)}
            assert mine and not mine & set(remove_orphans(client))  # containers of living processes stay
            assert {each.id for each in client.containers.list(filters=living)} == mine
        assert not client.containers.list(all=True, filters={"label": f"{LABEL}={os.getpid()}"})


CHANNEL = """import json, os, stat, struct, sys, time
s = [n for n in range(3, 64) if os.path.exists(f'/proc/self/fd/{n}') and stat.S_ISSOCK(os.fstat(n).st_mode)][0]
frame = sys._getframe()
while 'request' not in frame.f_locals: frame = frame.f_back
token = frame.f_locals['request']['token']
def reply(message):
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    os.write(s, struct.pack('!I', len(data)) + data)
"""
WHOLE = "{'token': token, 'status': 'ok', 'error': '', 'echo': '', 'memory_bytes': 1, 'kept': True}"
FORGED = {
    "an ending": "{'ending': 'unstarted'}",
    "seconds": "{'ending': 'timed_out', 'seconds': []}",
    "a list": "[1]",
    "not JSON": "b'{'",
    "deep": "b'[' * 100_000",
    "another token": WHOLE + " | {'token': 'guess'}",
    "an unknown status": WHOLE + " | {'status': 'splendid'}",
    "a status of another type": WHOLE + " | {'status': []}",
    "memory of another type": WHOLE + " | {'memory_bytes': 'x'}",
    "an error of another type": WHOLE + " | {'error': {}}",
}


async def honest(sandbox: Sandbox) -> None:
    """A step of another tree gives its own answer within a second."""
    start = time.monotonic()
    execution = await sandbox.run(
        None, "import math\nwith open('f', 'w') as f: f.write('hello')\nprint(math.gcd(12, 18), open('f').read())"
    )
    assert (execution.verdict, execution.output) == (OK, "6 hello"), execution
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("message", FORGED.values(), ids=FORGED.keys())
async def test_a_forged_reply_makes_only_that_step_fail(sandbox: Sandbox, message: str) -> None:
    execution = await sandbox.run(None, f"{CHANNEL}reply({message})\ntime.sleep(9)")
    assert execution.verdict is Verdict.FORBIDDEN
    await honest(sandbox)
    assert sandbox.metrics()["sandbox_lost"] == 0


async def test_a_huge_frame_counts_as_forged_and_a_slow_one_ends_at_the_deadline(sandbox: Sandbox) -> None:
    execution = await sandbox.run(None, f"{CHANNEL}os.write(s, struct.pack('!I', 2**31))\ntime.sleep(9)")
    assert execution.verdict is Verdict.FORBIDDEN
    start = time.monotonic()
    slow = "os.write(s, struct.pack('!I', 2**18))\nwhile True:\n    os.write(s, b' ')\n    time.sleep(0.05)"
    assert (await sandbox.run(None, CHANNEL + slow)).verdict is TIME
    assert time.monotonic() - start < LIMITS.seconds + 1
    await honest(sandbox)


async def test_deeply_nested_variables_are_ignored(sandbox: Sandbox) -> None:
    deep = "nest = 0\nfor _ in range(900): nest = [nest]\n"
    execution = await sandbox.run(None, f"{CHANNEL}{deep}reply({WHOLE} | {{'variables': {{'x': nest}}}})")
    assert execution.verdict is OK
    await honest(sandbox)


async def test_texts_of_a_step_are_bounded_and_encodable(sandbox: Sandbox) -> None:
    long = await sandbox.run(None, "import os\nraise type('E' * 30_000_000, (Exception,), {})('m')")
    assert long.verdict is EXCEPTION and len(long.error) <= 2000
    odd = await sandbox.run(None, "import os\nclass A:\n    def __repr__(self): return '\\ud800'\nA()")
    assert (odd.verdict, odd.output) == (OK, "?")
    assert (await sandbox.run(None, "import os\nraise ValueError('\\ud800')")).error.encode()
    await honest(sandbox)


@pytest.mark.parametrize("lie", ["victim", "-1", "1", "2**70", "'abc'"])
async def test_a_step_cannot_choose_which_process_is_killed(sandbox: Sandbox, lie: str) -> None:
    victim = await sandbox.run(None, "import os\nx = [1]\nprint(os.getpid())")
    lie = victim.output if lie == "victim" else lie
    liar = await sandbox.run(None, f"import os\nos.getpid = lambda: {lie}\nos.listdir = None")
    assert (await sandbox.run(liar.checkpoint, "import math\n1 / 0")).verdict is EXCEPTION
    revivals = sandbox.metrics()["checkpoint_revivals"]
    assert (await sandbox.run(victim.checkpoint, "print(x)")).output == "[1]"
    assert sandbox.metrics()["checkpoint_revivals"] == revivals
    await honest(sandbox)


REFUSALS = {
    "limits of the parent": "import resource\nresource.prlimit(os.getppid(), resource.RLIMIT_AS, (1, 1))",
    "limits of the server": "import resource\nresource.prlimit(1, resource.RLIMIT_NOFILE, (3, 3))",
    "owner of a descriptor": "import fcntl\nfcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, 1)",
    "signal of a descriptor": "import fcntl\nfcntl.fcntl(os.pipe()[0], 10, 9)",
    "owner by ioctl": "import fcntl\nfcntl.ioctl(os.pipe()[0], 0x8901, b'1234')",
    "interval timer": "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.1)",
    "message queue": "open('/dev/mqueue/x', 'w')",
    "list the work folder": "os.listdir('/work')",
    "open the work folder": "os.chmod('/work', 0o777)",
}


@pytest.mark.parametrize("code", REFUSALS.values(), ids=REFUSALS.keys())
async def test_the_kernel_refuses_it(sandbox: Sandbox, code: str) -> None:
    execution = await sandbox.run(None, f"import os\n{code}")
    assert execution.verdict is EXCEPTION
    assert re.search("Permission denied|not permitted|Read-only file system|No space left", execution.error), execution
    await honest(sandbox)


async def test_a_step_that_lowers_its_own_limits_harms_only_itself(sandbox: Sandbox) -> None:
    low = await sandbox.run(None, "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))")
    assert (await sandbox.run(low.checkpoint, "import math\nprint(2)")).output == "2"
    await honest(sandbox)


async def test_a_kept_interpreter_does_not_run(sandbox: Sandbox) -> None:
    for _ in range(4):  # each reports its end and then keeps running
        spinner = await sandbox.run(None, f"{CHANNEL}reply({WHOLE})\nwhile True: pass")
        assert spinner.verdict is OK
    states = (
        "import os, time\ntime.sleep(0.2)\nfor p in os.listdir('/proc'):\n"
        "    if p.isdigit() and p != str(os.getpid()): print(open(f'/proc/{p}/stat').read().rpartition(')')[2].split()[0])"
    )
    assert (await sandbox.run(None, states)).output.split().count("T") >= 4  # T: stopped
    assert "R" not in (await sandbox.run(None, states)).output
    await honest(sandbox)
    assert (await sandbox.run(spinner.checkpoint, "import math\nprint(1)")).verdict in (EXCEPTION, OK)
    await honest(sandbox)


async def test_a_step_cannot_take_the_names_of_future_folders(sandbox: Sandbox) -> None:
    squatter = f"import os\nfor i in range(5000):\n    try: os.mkdir('{WORK}/c' + str(i))\n    except OSError: pass"
    await sandbox.run(None, squatter)
    folders = {(await sandbox.run(None, "import os\nprint(os.path.basename(os.getcwd()))")).output for _ in range(2)}
    assert len(folders) == 2
    assert all(re.fullmatch("[0-9a-f]{32}\n?", folder) for folder in folders)
    await honest(sandbox)


@pytest.mark.parametrize(
    "code",
    [
        f"for i in range(9):\n    with open('{WORK}/junk' + str(i), 'wb') as f: f.write(bytes(15 * 2**20))",
        f"i = 0\nwhile True:\n    open('{WORK}/j' + str(i), 'w').close()\n    i += 1",
    ],
    ids=["blocks", "inodes"],
)
async def test_files_left_outside_the_step_s_folder_are_removed(sandbox: Sandbox, code: str) -> None:
    assert (await sandbox.run(None, f"import os\n{code}")).verdict in (EXCEPTION, TIME)
    await sandbox.run(None, "import os")  # runs in a new container
    await honest(sandbox)
    assert sandbox.metrics()["server_starts"] == 2


async def test_a_folder_that_cannot_be_copied_is_an_error_of_its_own_tree(sandbox: Sandbox) -> None:
    for code in ("open('f', 'w').close()\nos.chmod('f', 0)", "os.chmod('.', 0)"):
        execution = await sandbox.run(None, f"import os\n{code}")
        if execution.checkpoint:
            after = await sandbox.run(execution.checkpoint, "import math\nprint(2)")
            assert (after.verdict, "copied" in after.error) == (EXCEPTION, True)
        await honest(sandbox)


async def test_a_very_deep_folder_is_removed(sandbox: Sandbox) -> None:
    await sandbox.run(None, "import os\nfor _ in range(3000):\n    os.mkdir('d')\n    os.chdir('d')\n1 / 0")
    await honest(sandbox)
    used = await sandbox.run(None, "import os\ns = os.statvfs('.')\nprint(s.f_files - s.f_ffree < 100)")
    assert used.output == "True"


async def test_an_interpreter_that_keeps_ending_itself_makes_only_its_own_tree_fail(sandbox: Sandbox) -> None:
    gone = await sandbox.run(None, f"{CHANNEL}reply({WHOLE})\nos._exit(0)")
    await asyncio.sleep(0.1)
    assert (await sandbox.run(gone.checkpoint, "import math\nprint(1)")).verdict is EXCEPTION
    await honest(sandbox)
    assert sandbox.metrics()["sandbox_lost"] == 0


async def test_the_memory_of_a_first_step_has_nothing_of_another_tree(sandbox: Sandbox) -> None:
    victim = await sandbox.run(None, "import os\nsecret = 'MARKER-' + str(40 + 2)\nopen('notes', 'w').write(secret)")
    search = (
        "import sympy, sys, ctypes, re\nframe, seen = sys._getframe(), []\nwhile frame:\n"
        "    seen += [type(each).__name__ for each in frame.f_locals.values()]\n    frame = frame.f_back\n"
        "found = 0\nfor line in open('/proc/self/maps'):\n"
        "    low, high, mode = re.match(r'(\\w+)-(\\w+) (\\S+)', line).groups()\n"
        "    if mode.startswith('rw') and '[v' not in line:\n"
        "        held = ctypes.string_at(int(low, 16), int(high, 16) - int(low, 16))\n"
        "        found += held.count(bytes(reversed(b\")'w' ,'seton'(nepo\")))\n"
        "print('Server' in seen, 'Process' in seen, found)"
    )
    assert victim.verdict is OK
    assert (await sandbox.run(None, search)).output == "False False 0"
