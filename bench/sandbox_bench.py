"""Step executions a second: the fast path, forks of a kept interpreter, and forks after a sympy step.

python bench/sandbox_bench.py [SECONDS_EACH]
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from itertools import count

from sandbox.local import LocalSandbox

WORKLOADS = {
    "fast path": ("tom = 34", "# Tom sells 12 of them\ntom = tom - 12 - {}"),
    "fork": ("import math\nx = [1, 2]", "y = [v * {} for v in x]\nprint(sum(y))"),
    "fork after sympy": ("import sympy as sp\nx = sp.symbols('x')", "print(sp.solve(x**2 - {} ** 2, x))"),
}


async def measure(prefix: str, step: str, *, seconds: float, num_at_once: int = 8) -> float:
    """Return the rate of `step` on one checkpoint with `num_at_once` siblings in flight."""
    async with LocalSandbox() as sandbox:
        parent = (await sandbox.run(None, prefix)).checkpoint
        numbers, end = count(1), time.perf_counter() + seconds

        async def sibling() -> int:
            done = 0
            while time.perf_counter() < end:
                execution = await sandbox.run(parent, step.format(next(numbers)))
                assert execution.checkpoint, execution.error
                await sandbox.release(execution.checkpoint)
                done += 1
            return done

        await sandbox.run(parent, step.format(0))
        start = time.perf_counter()
        return sum(await asyncio.gather(*[sibling() for _ in range(num_at_once)])) / (time.perf_counter() - start)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    print(f"{os.cpu_count()} cores, steps a second:")
    for name, (prefix, step) in WORKLOADS.items():
        print(f"{name:>18} {asyncio.run(measure(prefix, step, seconds=seconds)):>10,.0f}")


if __name__ == "__main__":
    main()
