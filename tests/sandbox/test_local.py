"""The local provider: which failures it survives, and what it says about itself."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time

import psutil
import pytest

from rstar.protocols import SandboxLost, UserError, Verdict
from sandbox.limits import Limits
from sandbox.local import LocalSandbox
from sandbox.providers import open_sandbox
from sandbox.verdicts import execution_of

LIMITS = Limits(seconds=2.0, num_retries=1)
SLOW = "import time\ntime.sleep(0.3)\nx"


def one_worker() -> LocalSandbox:
    return LocalSandbox(limits=LIMITS, num_workers=1)


async def test_a_server_killed_under_a_step_is_replaced_and_the_step_retried() -> None:
    async with one_worker() as sandbox:
        parent = (await sandbox.run(None, "import math\nx = [1, 2]")).checkpoint
        running = asyncio.create_task(sandbox.run(parent, SLOW))
        await asyncio.sleep(0.15)
        os.kill(sandbox._servers[0].pid or 0, signal.SIGKILL)
        execution = await running
        assert (execution.verdict, execution.output) == (Verdict.OK, "[1, 2]")
        metrics = sandbox.metrics()
        assert (metrics["sandbox_lost"], metrics["server_starts"]) == (1, 2)


async def test_after_the_last_retry_the_caller_gets_sandbox_lost() -> None:
    async with one_worker() as sandbox:
        running = asyncio.create_task(sandbox.run(None, f"x = []\n{SLOW}"))
        with pytest.raises(SandboxLost):
            while not running.done():
                await asyncio.sleep(0.1)
                if pid := sandbox._servers[0].pid:
                    os.kill(pid, signal.SIGKILL)
            await running
        assert (await sandbox.run(None, "x = []\nx")).output == "[]"


async def test_a_killed_checkpoint_is_restored_without_losing_the_others() -> None:
    async with one_worker() as sandbox:
        parent = (await sandbox.run(None, "import os\nx = [1]\nprint(os.getpid())")).checkpoint
        tree = psutil.Process(sandbox._servers[0].pid).children(recursive=True)
        max(tree, key=lambda process: process.create_time()).kill()
        assert (await sandbox.run(parent, "x")).output == "[1]"
        assert sandbox.metrics()["server_starts"] == 1


async def test_a_step_that_takes_longer_when_it_runs_again_has_the_full_time_limit() -> None:
    async with one_worker() as sandbox:
        soon = time.time() + 1.0
        slow_later = f"import os, time\nif time.time() > {soon}:\n    time.sleep(1.0)\nx = [1]\nprint(os.getpid())"
        parent = (await sandbox.run(None, slow_later)).checkpoint
        tree = psutil.Process(sandbox._servers[0].pid).children(recursive=True)
        max(tree, key=lambda process: process.create_time()).kill()
        await asyncio.sleep(soon - time.time())
        assert (await sandbox.run(parent, "x")).output == "[1]"


@pytest.mark.parametrize("namespaces", [True, False])
async def test_no_process_outlives_its_server(namespaces: bool) -> None:
    before = set(psutil.Process().children(recursive=True))
    async with LocalSandbox(limits=LIMITS, num_workers=1, namespaces=namespaces) as sandbox:
        for number in range(3):
            await sandbox.run(None, f"x = [{number}]")
        running = asyncio.create_task(sandbox.run(None, "import time\ntime.sleep(60)"))
        await asyncio.sleep(0.2)
        processes = set(psutil.Process().children(recursive=True)) - before
        assert len(processes) >= 6  # the server, a root, three checkpoints, the sleeper
        os.kill(sandbox._servers[0].pid or 0, signal.SIGKILL)
        _, alive = psutil.wait_procs(processes, timeout=3)
        assert not alive
        assert (await running).verdict is Verdict.TIME_LIMIT
    assert not set(psutil.Process().children(recursive=True)) - before


STEPS = [
    "# Tom has 34\ntom = 34\ntom",
    "tom = tom / 0\n",
    "print(tom, tom / 3, f'{tom:.2f}')",
    "x = ann",
    "a, b = 1, (2, 'three')\nb",
    "from fractions import Fraction\nFraction(tom, 8)",
    "print(tom)\n\ntom + 'x'",
    "tom **= 2\ntom % 100",
    "Fraction(1, 0)",
    "print()\ntom",
]


async def test_the_fast_path_gives_the_same_results_as_a_fork() -> None:
    results = []
    for fast_path in (True, False):
        async with LocalSandbox(limits=LIMITS, num_workers=1, fast_path=fast_path) as sandbox:
            checkpoint, executions = None, []
            for step in STEPS:
                execution = await sandbox.run(checkpoint, step)
                checkpoint = execution.checkpoint or checkpoint
                executions.append((execution.verdict, execution.output, execution.error))
            results.append(executions)
            assert sandbox.metrics()["fast_path_share"] == fast_path
    assert results[0] == results[1]


async def test_servers_start_only_when_they_get_a_step() -> None:
    async with LocalSandbox(limits=LIMITS, num_workers=4) as sandbox:
        for _ in range(5):
            await sandbox.run(None, "x = 1")
        assert sandbox.metrics()["server_starts"] == 1
        assert sandbox.metrics()["fast_path_share"] == 1.0


async def test_at_the_start_it_logs_once_what_it_does_not_protect_against(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="sandbox"):
        async with one_worker() as sandbox:
            await sandbox.run(None, "x = []")
    assert [record.message for record in caplog.records] == [sandbox.protections()]
    assert "does NOT protect" in sandbox.protections()


async def test_the_text_names_what_the_kernel_refused() -> None:
    async with LocalSandbox(limits=LIMITS, num_workers=1, namespaces=False) as sandbox:
        assert "it can use the network" in sandbox.protections()


async def test_an_isolated_step_sees_no_network_and_no_other_process() -> None:
    async with one_worker() as sandbox:
        if not sandbox._servers[0].isolation["network"]:
            pytest.skip("the kernel gives no network namespace to this user")
        code = "import math\nprint(open('/proc/net/dev').read().count(':'))"
        assert (await sandbox.run(None, code)).output == "1"  # a loopback device, down
        assert int((await sandbox.run(None, "import os\nos.getpid()")).output) < 1000


def test_an_unknown_provider_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"unknown sandbox 'dokcer': choose one of auto, docker, gvisor, local"):
        open_sandbox("dokcer")


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        ({"ending": "finished", "status": "ok", "output": "", "echo": "5"}, Verdict.OK),
        ({"ending": "finished", "status": "ok", "output": "MemoryError"}, Verdict.OK),
        ({"ending": "finished", "status": "exception", "error": "E"}, Verdict.EXCEPTION),
        ({"ending": "finished", "status": "memory"}, Verdict.MEMORY_LIMIT),
        ({"ending": "finished", "status": "forbidden"}, Verdict.FORBIDDEN),
        ({"ending": "finished", "status": "ok", "echo": "a" * 70_000}, Verdict.OUTPUT_LIMIT),
        ({"ending": "timed_out"}, Verdict.TIME_LIMIT),
        ({"ending": "output_overflow"}, Verdict.OUTPUT_LIMIT),
        ({"ending": "vanished"}, Verdict.EXCEPTION),
    ],
)
def test_a_failing_step_is_a_result(report: dict[str, str], verdict: Verdict) -> None:
    assert execution_of(report, LIMITS).verdict is verdict


@pytest.mark.parametrize(
    "report", [None, {}, {"ending": "unstarted"}, {"ending": "parent_gone"}, {"ending": "finished"}]
)
def test_a_dead_sandbox_is_an_error(report: dict[str, str] | None) -> None:
    with pytest.raises(SandboxLost):
        execution_of(report, LIMITS)
