"""What every sandbox provider guarantees. For a new provider, add an entry to PROVIDERS.

The Docker provider needs an engine. Without one its tests are skipped, or fail if RSTAR_REQUIRE_DOCKER is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from rstar.protocols import Executor, SandboxLost, Verdict
from sandbox.container import LABEL, DockerSandbox, engine
from sandbox.limits import Limits
from sandbox.local import LocalSandbox
from sandbox.pool import Sandbox

LIMITS = Limits(seconds=5.0, memory_bytes=128 * 2**20, output_bytes=10_000, num_checkpoints=6)
HASTY = replace(LIMITS, seconds=0.5)
Make = Callable[[Limits], Sandbox]
PROVIDERS: dict[str, Make] = {
    "docker": lambda limits: DockerSandbox(limits=limits, num_workers=2),
    "local": lambda limits: LocalSandbox(limits=limits, num_workers=2),
    "local without namespaces": lambda limits: LocalSandbox(limits=limits, num_workers=1, namespaces=False),
}
FORK = "import os"  # keeps this step and all later ones off the fast path


@pytest.fixture(scope="module", params=list(PROVIDERS))
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "docker":
        request.getfixturevalue("docker_image")
    return PROVIDERS[request.param]


@pytest.fixture
async def sandbox(make: Make) -> AsyncIterator[Sandbox]:
    async with make(LIMITS) as sandbox:
        yield sandbox


async def state(sandbox: Executor, *codes: str) -> str:
    """Run the steps in order and return the last checkpoint; all must be ok."""
    checkpoint = None
    for code in codes:
        execution = await sandbox.run(checkpoint, code)
        assert execution.verdict is Verdict.OK, execution
        checkpoint = execution.checkpoint
    assert checkpoint
    return checkpoint


async def state_after(sandbox: Executor, checkpoint: str, code: str) -> str:
    execution = await sandbox.run(checkpoint, code)
    assert execution.verdict is Verdict.OK and execution.checkpoint, execution
    return execution.checkpoint


@pytest.mark.parametrize("first", ["x = 3", f"{FORK}\nx = 3"], ids=["fast", "forked"])
@pytest.mark.parametrize("second", ["y = x + 1", f"{FORK}\ny = x + 1"], ids=["fast", "forked"])
async def test_a_step_sees_the_state_of_its_prefix(sandbox: Sandbox, first: str, second: str) -> None:
    execution = await sandbox.run(await state(sandbox, first, second), "print(x, y)")
    assert (execution.verdict, execution.output) == (Verdict.OK, "3 4")


async def test_siblings_do_not_see_each_other(sandbox: Sandbox) -> None:
    parent = await state(sandbox, "import math, os\nitems = [1]\nopen('shared', 'w').write('of the parent')")
    vandal = "items.append(2)\nmath.sqrt = abs\nmine = 1\nopen('mine', 'w').close()\nos.remove('shared')"
    await state_after(sandbox, parent, vandal)
    seen = await sandbox.run(parent, "print(items, math.sqrt(9), 'mine' in dir(), os.listdir(), open('shared').read())")
    assert seen.output == "[1] 3.0 False ['shared'] of the parent"


@pytest.mark.parametrize(
    ("code", "verdict", "error"),
    [
        ("x = 1\ny = x / 0", Verdict.EXCEPTION, "ZeroDivisionError: division by zero (line 2: y = x / 0)"),
        ("import math\nmath.sqrt(-1)", Verdict.EXCEPTION, "ValueError: math domain error (line 2: math.sqrt(-1))"),
        ("x = 1\ny = ", Verdict.EXCEPTION, "SyntaxError: invalid syntax (line 2: y =)"),
        ("print(apples)", Verdict.EXCEPTION, "NameError: name 'apples' is not defined (line 1: print(apples))"),
        ("import nothing_like_it", Verdict.EXCEPTION, "ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("def f(n):\n    return f(n + 1)\nf(0)", Verdict.EXCEPTION, "RecursionError: maximum recursion depth exceeded"),
        ("import os\nos._exit(0)", Verdict.EXCEPTION, "ProcessExit: the step ended its own process"),
        ("import sys\nsys.exit()", Verdict.EXCEPTION, "SystemExit"),
        ("input()", Verdict.EXCEPTION, "EOFError"),
        ("class E(Exception):\n  def __str__(self): return 1/0\nraise E", Verdict.EXCEPTION, "E"),
        ("'a' * 10**10", Verdict.MEMORY_LIMIT, "MemoryError"),
        ("rows = []\nwhile True: rows.append([0] * 10**6)", Verdict.MEMORY_LIMIT, "MemoryError"),
        ("print('a' * 20_000)", Verdict.OUTPUT_LIMIT, "the step printed more than 10000 bytes"),
        ("while True: print('a')", Verdict.OUTPUT_LIMIT, "the step printed more"),
        ("import os\nwhile True: os.write(1, b'a' * 1000)", Verdict.OUTPUT_LIMIT, "the step printed more"),
        ("'a' * 20_000", Verdict.OUTPUT_LIMIT, "the step printed more"),
        ("import os\nos.system('true')", Verdict.FORBIDDEN, "Forbidden: os.system (line 2"),
        ("import os\ntry: os.fork()\nexcept BaseException: pass", Verdict.FORBIDDEN, "Forbidden: os.fork"),
        ("open('/tmp/escaped', 'w')", Verdict.FORBIDDEN, "Forbidden: open outside the step's folder (line 1"),
        ("import socket\nsocket.create_connection(('127.0.0.1', 1))", Verdict.FORBIDDEN, "Forbidden: socket."),
    ],
)
async def test_each_failure_has_its_verdict_and_error(
    sandbox: Sandbox, code: str, verdict: Verdict, error: str
) -> None:
    execution = await sandbox.run(None, code)
    assert execution.verdict is verdict, execution.error
    assert execution.error.startswith(error)
    assert execution.checkpoint is None


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "while True:\n    try: __import__('time').sleep(9)\n    except BaseException: pass",
        "7 ** 10**9",
    ],
)
async def test_an_endless_step_is_killed_and_the_next_request_is_answered(make: Make, code: str) -> None:
    async with make(HASTY) as sandbox:
        await sandbox.run(None, FORK)
        start = time.monotonic()
        execution = await sandbox.run(None, code)
        assert execution.verdict is Verdict.TIME_LIMIT
        assert time.monotonic() - start < HASTY.seconds + 1
        assert (await sandbox.run(None, f"{FORK}\n1 + 1")).output == "2"
        assert time.monotonic() - start < HASTY.seconds + 2


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("print('error: Traceback')", "error: Traceback"),
        ("x = 2\nx * 3", "6"),
        ("import math\nmath.gcd(12, 18)", "6"),
        ("print(1)\n2", "1"),
        ("import math\nprint(1)\nx = 5\nprint(x)", "1\n5"),
        ("print(1); x = [1]", "1"),
        ("import tempfile\nwith tempfile.TemporaryFile() as f: print(f.write(b'abc'))", "3"),
        ("x = None\nx", ""),
        ("", ""),
        ("import os\nos.write(1, b'\\xffno newline')", "\N{REPLACEMENT CHARACTER}no newline"),
        ("print('caf\N{LATIN SMALL LETTER E WITH ACUTE}')", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"),
    ],
)
async def test_the_output_is_what_was_printed_or_else_the_last_expression(
    sandbox: Sandbox, code: str, output: str
) -> None:
    execution = await sandbox.run(None, code)
    assert (execution.verdict, execution.output) == (Verdict.OK, output), execution.error


async def test_output_before_a_failure_is_kept(sandbox: Sandbox) -> None:
    for code in ("print(7)\n1 / 0", f"{FORK}\nprint(7)\n1 / 0"):
        assert (await sandbox.run(None, code)).output == "7"


async def test_an_evicted_checkpoint_is_restored_unchanged(sandbox: Sandbox) -> None:
    prefix = ["import random\nseen = {'a', 'b', 'c'}\nx = random.random()", "items = [x]\nopen('f', 'w').write(str(x))"]
    tail = "print(items, seen, random.random(), open('f').read())"
    parent = await state(sandbox, *prefix)
    before = await sandbox.run(parent, tail)
    for number in range(3 * LIMITS.num_checkpoints):
        await state(sandbox, f"{FORK}\nother = {number}")
    metrics = sandbox.metrics()
    after = await sandbox.run(parent, tail)
    assert after.output == before.output
    assert sandbox.metrics()["checkpoint_revivals"] == metrics["checkpoint_revivals"] + 1
    assert metrics["checkpoints_kept"] <= LIMITS.num_checkpoints


async def test_a_released_checkpoint_is_gone_and_those_that_continue_it_stay(sandbox: Sandbox) -> None:
    parent = await state(sandbox, f"{FORK}\nx = [1]")
    child = await state_after(sandbox, parent, "y = x")
    await sandbox.release(parent)
    with pytest.raises(ValueError, match="released"):
        await sandbox.run(parent, "x")
    assert (await sandbox.run(child, "y")).output == "[1]"


async def test_concurrent_steps_do_not_affect_each_other(sandbox: Sandbox) -> None:
    parent = await state(sandbox, f"{FORK}\nx = [100]")
    executions = await asyncio.gather(*[sandbox.run(parent, f"x.append({n})\nx") for n in range(50)])
    assert [execution.output for execution in executions] == [f"[100, {n}]" for n in range(50)]


@pytest.mark.skipif(not importlib.util.find_spec("sympy"), reason="sympy is not installed")
async def test_sympy_solves_in_a_step_after_arithmetic(sandbox: Sandbox) -> None:
    parent = await state(sandbox, "total = 12", "import sympy as sp\nx = sp.symbols('x')")
    assert (await sandbox.run(parent, "sp.solve(3 * x - total, x)")).output == "[4]"


async def test_a_cancelled_caller_disturbs_no_other_step(sandbox: Sandbox) -> None:
    parent = await state(sandbox, f"{FORK}\nx = [1]")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(sandbox.run(parent, "import time\ntime.sleep(0.5)\nprint('late')"), 0.1)
    executions = await asyncio.gather(*[sandbox.run(parent, f"x + [{n}]") for n in range(6)])
    assert [execution.output for execution in executions] == [f"[1, {n}]" for n in range(6)]


async def test_a_step_cannot_read_the_caller_s_environment(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSTAR_TEST_SECRET", "hunter2")
    async with make(LIMITS) as fresh:
        assert (await fresh.run(None, "import os\n'RSTAR_TEST_SECRET' in os.environ")).output == "False"


OPEN = [
    ("f = open('log', 'w+')", "f.write('mine'); f.flush()", "f.seek(0); print(repr(f.read()))", "''"),
    ("f = open('log', 'w+'); f.write('begun')", "f.flush()", "f.flush(); f.seek(0); print(f.read())", "begun"),
    ("import mmap; m = mmap.mmap(-1, 4)", "m[:4] = b'mine'", "print(m[:4])", r"b'\x00\x00\x00\x00'"),
    ("f = os.open('log', os.O_RDWR | os.O_CREAT); os.dup2(f, 2); os.close(f)", "os.write(2, b'mine')",
     "os.lseek(2, 0, 0); print(os.read(2, 9))", "b''"),
    ("r, w = os.pipe(); os.set_blocking(r, False)", "os.write(w, b'mine')", "os.write(w, b'x'); print(os.read(r, 9))",
     "b'x'"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "vandal", "look", "seen"), OPEN)
async def test_siblings_share_no_file_or_memory_that_their_prefix_left_open(
    sandbox: Sandbox, code: str, vandal: str, look: str, seen: str
) -> None:
    parent = await state(sandbox, f"{FORK}\n{code}", "x = 1")
    await state_after(sandbox, parent, vandal)
    execution = await sandbox.run(parent, look)
    assert (execution.verdict, execution.output) == (Verdict.OK, seen)
    after = await state_after(sandbox, await state_after(sandbox, parent, vandal), "y = 2")
    assert (await sandbox.run(after, "print(x, y)")).output == "1 2"


async def test_the_output_of_a_prefix_is_not_repeated(sandbox: Sandbox) -> None:
    parent = await state(sandbox, "f = open('log', 'w')\nprint('once')")
    assert (await sandbox.run(parent, "print('twice')")).output == "twice"


ELSEWHERE = [
    "open(home + '/d', 'w').write('second')",
    "f = os.open(home, os.O_RDONLY); g = os.open('d', os.O_WRONLY, dir_fd=f); os.write(g, b'second')",
]


@pytest.mark.parametrize("code", ELSEWHERE)
async def test_a_step_cannot_reach_a_folder_of_the_steps_before(sandbox: Sandbox, code: str) -> None:
    parent = await state(sandbox, f"{FORK}\nhome = os.getcwd(); open('d', 'w').write('first')")
    assert (await sandbox.run(parent, code)).error.startswith("FileNotFoundError")
    assert (await sandbox.run(parent, "print(open('d').read(), os.listdir())")).output == "first ['d']"


AGAIN = [
    ("f = open('x', 'w')", "f.write('hi'); f.flush(); v = open('x').read()", "print(repr(v))"),
    ("os.mkdir('d'); os.chdir('d')", "v = os.path.exists('../a')", "print(v, os.path.basename(os.getcwd()))"),
    ("import numpy", "x = numpy.random.rand()", "print(x)"),
    ("import scipy.stats", "x = scipy.stats.norm.rvs()", "print(x)"),
    ("y = 1; import numpy as np", "x = np.random.rand()", "print(x)"),
    ("import random", "x = random.random()", "print(x)"),
    ("import signal; signal.signal(signal.SIGCHLD, print)", "x = 1", "print(signal.getsignal(signal.SIGCHLD))"),
]


@pytest.mark.parametrize(("first", "second", "look"), AGAIN)
async def test_a_restored_state_is_the_same(make: Make, first: str, second: str, look: str) -> None:
    if importlib.util.find_spec("scipy") is None and "scipy" in first:
        pytest.skip("no scipy here")
    found = []
    for evicted in (False, True):
        async with make(replace(LIMITS, num_checkpoints=2)) as sandbox:
            parent = await state(sandbox, f"{FORK}\nopen('a', 'w').close()\n{first}", second)
            if evicted:
                for _ in range(6):
                    await sandbox.run(None, FORK)
            execution = await sandbox.run(parent, look)
            assert execution.verdict is Verdict.OK, execution
            found.append(execution.output)
    assert found[0] == found[1]


async def test_a_restored_state_that_cannot_be_kept_is_run_again_with_the_step(make: Make) -> None:
    async with make(replace(LIMITS, num_checkpoints=2)) as sandbox:
        later = time.time() + 1.0
        parent = await state(sandbox, f"import os, time\nf = open('x', 'w') if time.time() > {later} else None")
        for _ in range(6):
            await sandbox.run(None, FORK)
        await asyncio.sleep(1.1)
        assert (await sandbox.run(parent, "this is ( not python")).verdict is Verdict.EXCEPTION
        assert (await sandbox.run(parent, "print(f.name)")).output == "x"


async def test_the_time_of_a_step_excludes_its_prefix(sandbox: Sandbox) -> None:
    parent = await state(sandbox, "import time\nf = open('x', 'w')\ntime.sleep(0.3)", "y = 1")
    assert (await sandbox.run(parent, "print(y)")).seconds < 0.2


async def test_a_step_can_clean_up_a_temporary_folder_of_the_steps_before(sandbox: Sandbox) -> None:
    parent = await state(sandbox, "import tempfile\nt = tempfile.TemporaryDirectory()")
    assert (await sandbox.run(parent, "t.cleanup()")).verdict is Verdict.OK


async def test_a_step_may_end_in_a_removed_folder(sandbox: Sandbox) -> None:
    parent = await state(sandbox, "import os, tempfile\nwith tempfile.TemporaryDirectory() as d: os.chdir(d)")
    assert (await sandbox.run(parent, "print(1)")).output == "1"


async def test_joined_threads_are_not_forbidden(sandbox: Sandbox) -> None:
    code = "from threading import Thread\nall_ = [Thread(target=int) for _ in range(4)]\n[t.start() for t in all_]"
    for _ in range(10):
        assert (await sandbox.run(None, f"{code}\n[t.join() for t in all_]\n1")).verdict is Verdict.OK


async def test_output_before_the_time_limit_is_kept(make: Make) -> None:
    async with make(HASTY) as sandbox:
        execution = await sandbox.run(None, f"{FORK}\nprint('partial')\nwhile True: pass")
    assert (execution.verdict, execution.output.strip()) == (Verdict.TIME_LIMIT, "partial")


async def test_a_step_may_replace_standard_output(sandbox: Sandbox) -> None:
    code = f"{FORK}\nimport sys\nclass Quiet:\n  write = lambda *_: 0\n  flush = lambda *_: 0\nsys.stdout = Quiet()\n"
    assert (await sandbox.run(None, f"{code}print('nothing')")).verdict is Verdict.OK


async def test_a_step_may_close_standard_output(sandbox: Sandbox) -> None:
    execution = await sandbox.run(None, "import os\nos.close(1)\nprint('hid')")
    assert (execution.verdict, execution.error) == (
        Verdict.EXCEPTION,
        "OSError: [Errno 9] Bad file descriptor (line 3: print('hid'))",
    )
    parent = await state(sandbox, "import os\nos.close(1)")
    assert (await sandbox.run(parent, "import os\nprint(6)")).output == "6"


@pytest.mark.parametrize("timer", ["signal.alarm(1)", "signal.setitimer(signal.ITIMER_REAL, 1)"])
async def test_timers_are_forbidden(sandbox: Sandbox, timer: str) -> None:
    execution = await sandbox.run(None, f"import signal\n{timer}")
    assert (execution.verdict, execution.error.split(" (")[0]) == (
        Verdict.FORBIDDEN,
        f"Forbidden: {timer[: timer.index('(')]}",
    )


async def test_a_step_after_unkept_steps_has_its_own_time_limit(make: Make) -> None:
    async with make(replace(LIMITS, seconds=1.0)) as sandbox:
        parent = await state(sandbox, "f = open('x', 'w')", f"{FORK}\ny = 1", "y = 2", "y = 3")
        start = time.monotonic()
        execution = await sandbox.run(parent, "while True: pass")
        assert execution.verdict is Verdict.TIME_LIMIT
        assert time.monotonic() - start < 2.5
        assert 0.9 < execution.seconds < 1.5
        assert (await sandbox.run(parent, "print(y)")).output == "3"


async def test_a_step_can_write_only_in_its_own_folder(sandbox: Sandbox) -> None:
    for code in (
        "open('../left', 'w')",
        "import os\nos.mkdir('../left')",
        "import os\nopen('a', 'w')\nos.rename('a', '../left')",
    ):
        assert (await sandbox.run(None, code)).verdict is Verdict.FORBIDDEN, code
    deeper = await state(sandbox, "import os\nos.mkdir('d')\nos.chdir('d')", "open('../a', 'w').write('1')")
    assert (await sandbox.run(deeper, "print(open('../a').read())")).output == "1"


async def test_a_restored_folder_is_listed_in_the_same_order(sandbox: Sandbox) -> None:
    files = (
        "import os\nos.mkdir('sub')\nfor name in ('e', 'b', 'sub/z', 'a', 'sub/x', 'd'): open(name, 'w').write(name)"
    )
    listing = "print(os.listdir(), os.listdir('sub'))"
    parent = await state(sandbox, files, "x = [1]")
    first = (await sandbox.run(parent, listing)).output
    for server in sandbox._servers:
        server.forget(list(server._kept))
    assert (await sandbox.run(parent, listing)).output == first
    again = await state_after(sandbox, parent, "y = [2]")
    assert (await sandbox.run(again, listing)).output == first


HIJACKED = """import os, socket, sys
frame = sys._getframe()
while 'request' not in frame.f_locals: frame = frame.f_back
import sandbox.inside.interpreter as own
def refuse(self, request, descriptors):
    channel = socket.socket(fileno=descriptors[0])
    own.send(channel, {'unstarted': 'x'})
    channel.close()
    os.close(descriptors[1])
    return False
type(frame.f_locals['self'])._fork = refuse"""


async def test_an_interpreter_that_refuses_to_fork_makes_only_its_own_trajectory_fail(sandbox: Sandbox) -> None:
    other = await state(sandbox, f"{FORK}\nx = [1]")
    hijacked = await state(sandbox, HIJACKED)
    assert (await sandbox.run(hijacked, "import math\nprint(1)")).verdict is Verdict.EXCEPTION
    assert (await sandbox.run(other, "print(x)")).output == "[1]"
    assert sandbox.metrics()["sandbox_lost"] == 0


async def test_a_checkpoint_released_while_it_is_restored_is_not_kept(sandbox: Sandbox) -> None:
    parent = await state(sandbox, f"{FORK}\nx = [1]")
    for server in sandbox._servers:
        server.forget([parent])
    running = asyncio.create_task(sandbox.run(parent, "import time\ntime.sleep(0.3)"))
    await asyncio.sleep(0.05)
    await sandbox.release(parent)
    child = (await running).checkpoint
    assert child
    await sandbox.release(child)
    assert sandbox.metrics()["checkpoints_kept"] == 0


async def test_nan_keeps_its_identity_across_steps(sandbox: Sandbox) -> None:
    parent = await state(sandbox, "import math\na = float('nan')\nb = float('nan')", "c = 1")
    assert (await sandbox.run(parent, "print((a,) == (b,), (a,) == (a,))")).output == "False True"


async def test_numpy_is_seeded_for_any_kind_of_import(sandbox: Sandbox) -> None:
    if importlib.util.find_spec("numpy") is None:
        pytest.skip("no numpy here")
    code = "np = __import__('numpy')\nprint(np.random.rand())"
    assert (await sandbox.run(None, code)).output == (await sandbox.run(None, code)).output != ""


async def test_closing_the_sandbox_ends_the_running_step(make: Make) -> None:
    sandbox = make(replace(LIMITS, seconds=60.0))
    await sandbox.prepare()
    running = asyncio.create_task(sandbox.run(None, f"{FORK}\nwhile True: pass"))
    await asyncio.sleep(1.0)
    start = time.monotonic()
    await sandbox.aclose()
    assert time.monotonic() - start < 10
    with pytest.raises(SandboxLost):
        await running


OWNER = """import asyncio, sys
from sandbox.limits import Limits
from sandbox.providers import open_sandbox
async def main():
    async with open_sandbox(sys.argv[1], limits=Limits(seconds=600.0), workers=1) as sandbox:
        print("open", flush=True)
        await sandbox.run(None, "import os\\nwhile True: pass  # of a killed owner")
asyncio.run(main())
"""


@pytest.mark.parametrize("provider", ["docker", "local"])
def test_the_step_of_a_killed_owner_ends_with_it(provider: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if provider == "docker":
        request.getfixturevalue("docker_image")
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, provider], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert owner.stdout and owner.stdout.readline() == "open\n"
    deadline = time.monotonic() + 20
    while not (there := busy() & processes_of(owner.pid, provider)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert there  # the process of the step
    owner.kill()
    owner.wait()
    deadline = time.monotonic() + 10
    while there & set(psutil.pids()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not there & set(psutil.pids())
    if provider == "local":  # the next sandbox to start removes the folder
        [folder] = tmp_path.glob("rstar-sandbox-*")
        remove_abandoned_in(tmp_path)
        assert not folder.exists()


def processes_of(owner: int, provider: str) -> set[int]:
    """The processes that `owner` started, including those in its containers."""
    if provider == "local":
        return {process.pid for process in psutil.Process(owner).children(recursive=True)}
    with engine() as client:
        tops = [one.top() for one in client.containers.list(filters={"label": f"{LABEL}={owner}"})]
    return {int(row[top["Titles"].index("PID")]) for top in tops for row in top["Processes"]}


def busy() -> set[int]:
    """Fork server processes that are using a processor now, as an endless step does."""
    first, found = {}, set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            first[process.pid] = process.cpu_times().user
    time.sleep(0.4)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cpu_times().user - first.get(process.pid, 0.0) > 0.1 and "sandbox.inside.server" in " ".join(
                process.cmdline()
            ):
                found.add(process.pid)
    return found


def remove_abandoned_in(folder: Path) -> None:
    code = "from sandbox.link import remove_abandoned; remove_abandoned()"
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(folder)}, check=True)
