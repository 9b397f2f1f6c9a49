"""Sandbox: steps per second on a fixed workload, the latency of a step, and leaks after many steps.

    python -m bench.sandbox_bench [--provider docker] [--soak 200000]

The workload has 200 prefixes of 3 to 6 steps and 8 siblings after each prefix. 40 % of the prefixes contain a
sympy.solve; all other steps are arithmetic and loops. For comparison, the same run also executes the joined code with
`exec`, warm and one after the other: without limits or isolation, and with every prefix run again for each step. Prints
Markdown for docs/results.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass

import psutil

from rstar.protocols import UserError, Verdict
from sandbox.limits import Limits
from sandbox.pool import Sandbox
from sandbox.providers import open_sandbox

NUM_PREFIXES, NUM_SIBLINGS, SYMPY_SHARE = 200, 8, 0.4
IN_FLIGHT = 2  # prefixes at a time, one per worker: with more, the latency would mostly be queueing


@dataclass(frozen=True, slots=True)
class Job:
    """One prefix and the candidates for its next step."""

    prefix: list[str]
    siblings: list[str]


def workload(seed: int = 0) -> list[Job]:
    rng = random.Random(seed)
    return [job(rng, symbolic=number < SYMPY_SHARE * NUM_PREFIXES) for number in range(NUM_PREFIXES)]


def job(rng: random.Random, *, symbolic: bool) -> Job:
    steps = [f"# The start\ntotal = {rng.randint(20, 300)}"]
    for _ in range(rng.randint(2, 5)):
        steps.append(rng.choice((arithmetic, loop))(rng))
    if symbolic:
        a, b = rng.randint(2, 9), rng.randint(10, 99)
        steps[rng.randint(1, len(steps) - 1)] = (
            "# Solve the equation\nfrom sympy import symbols, solve\nx = symbols('x')\n"
            f"root = solve({a} * x**2 - {b} * x + total - {rng.randint(2, 9)}, x)[0]"
        )
    return Job(steps, [rng.choice((arithmetic, loop))(rng) + f"\nprint(total + {n})" for n in range(NUM_SIBLINGS)])


def arithmetic(rng: random.Random) -> str:
    n, m = rng.randint(2, 60), rng.randint(2, 9)
    change = rng.choice((f"total - {n}", f"total + {n} * {m}", f"total * {m}", f"total * 100 // (100 + {n})"))
    return f"# {n} of them change hands\ntotal = {change}\nshare = total / {m}"


def loop(rng: random.Random) -> str:
    n = rng.randint(20, 400)
    return f"# Count what divides\ncount = 0\nfor i in range(1, {n}):\n    if (total + i) % {rng.randint(3, 9)} == 0:\n        count += i\ntotal = total + count"  # noqa: E501


async def run_all(sandbox: Sandbox, jobs: list[Job], seconds: list[float]) -> None:
    """Run every job, and append the latency of each step to `seconds`."""
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def timed(parent: str | None, code: str) -> str:
        start = time.perf_counter()
        execution = await sandbox.run(parent, code)
        seconds.append(time.perf_counter() - start)
        assert execution.verdict is Verdict.OK and execution.checkpoint, execution
        return execution.checkpoint

    async def one(each: Job) -> None:
        async with gate:
            kept: list[str] = []
            for code in each.prefix:
                kept.append(await timed(kept[-1] if kept else None, code))
            kept += await asyncio.gather(*(timed(kept[-1], code) for code in each.siblings))
            for checkpoint in kept:
                await sandbox.release(checkpoint)

    await asyncio.gather(*(one(each) for each in jobs))


def serial_exec(jobs: list[Job]) -> float:
    """Return the seconds that `exec` takes for the joined code of each prefix and sibling, one after the other."""
    start = time.perf_counter()
    for each in jobs:
        ends = range(1, len(each.prefix) + 1)
        for code in [*("\n".join(each.prefix[:end]) for end in ends),
                     *("\n".join([*each.prefix, sibling]) for sibling in each.siblings)]:  # fmt: skip
            with contextlib.redirect_stdout(io.StringIO()):
                exec(code, {})
    return time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Usage:
    """The resources that the sandbox uses."""

    megabytes: float
    files: int
    processes: int
    containers: int


def usage(provider: str) -> Usage:
    this = psutil.Process()
    servers = [
        p
        for p in psutil.process_iter(["cmdline"])
        if any("sandbox.inside.server" in a for a in p.info["cmdline"] or [])
    ]
    memory = sum(p.memory_info().rss for p in [this, *servers] if p.is_running())
    containers = 0
    if provider != "local":
        listed = subprocess.run(
            ["docker", "ps", "-q", "--filter", "label=rstar.sandbox"], capture_output=True, text=True
        )
        containers = len(listed.stdout.split())
    return Usage(memory / 2**20, this.num_fds(), len(servers), containers)


async def measure(provider: str, soak: int) -> None:
    jobs = workload()
    began = time.perf_counter()
    async with open_sandbox(provider, limits=Limits()) as sandbox:
        started = time.perf_counter() - began
        execution = await sandbox.run(None, "import sympy\nsympy.solve(sympy.Symbol('x') - 3)")
        assert execution.verdict is Verdict.OK
        first_sympy = time.perf_counter() - began
        await run_all(sandbox, workload(seed=1), [])  # warm-up with other steps
        seconds: list[float] = []
        began = time.perf_counter()
        await run_all(sandbox, jobs, seconds)
        wall = time.perf_counter() - began
        metrics = sandbox.metrics()
        serial = min(serial_exec(jobs) for _ in range(2))
        ordered = sorted(seconds)
        print(f"{provider}, {len(os.sched_getaffinity(0))} cores, {len(seconds)} steps\n")
        print("| | |\n|---|---|")
        print(f"| steps per second | {len(seconds) / wall:,.0f} |")
        print(f"| serial warm exec of the joined code, per second | {len(seconds) / serial:,.0f} |")
        shown = (ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)], ordered[-1])
        print(f"| latency p50 / p99 / worst, ms | {' / '.join(f'{1e3 * x:.1f}' for x in shown)} |")
        print(f"| start of the pool; until the end of a first sympy step, s | {started:.2f}; {first_sympy:.2f} |")
        print(f"| steps on the fast path | {100 * metrics['fast_path_share']:.0f} % |")
        if soak:
            await run_many(sandbox, provider, jobs, soak)


async def run_many(sandbox: Sandbox, provider: str, jobs: list[Job], count: int) -> None:
    """Run the workload until `count` more steps have run; print the usage after its first and its last pass."""
    done, first = 0, None
    while done < count:
        seconds: list[float] = []
        await run_all(sandbox, jobs, seconds)
        done += len(seconds)
        for each in await asyncio.gather(*(sandbox.run(None, "import os") for _ in range(2))):
            await sandbox.release(each.checkpoint or "")  # sends the earlier releases to the servers, with this step
        first = first or (done, usage(provider))
        print(f"\r{done} of {count}", end="", file=sys.stderr)
    for number, state in (first, (done, usage(provider))):
        print(f"| after {number:,} more: memory MB, files, processes, containers | "
              f"{state.megabytes:.0f}, {state.files}, {state.processes}, {state.containers} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", default="docker", choices=("docker", "gvisor", "local"))
    parser.add_argument(
        "--soak",
        type=int,
        default=0,
        help="then run about N more steps, and print memory, files and processes",
        metavar="N",
    )
    options = parser.parse_args()
    try:
        asyncio.run(measure(options.provider, options.soak))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
