"""Search shard 0 of 1 with the bootstrap policy: python search_a_shard.py ROOT REQUESTS ROLLOUTS_IN_FLIGHT.

The policy writes a line to the file REQUESTS for each expansion, and then answers slowly.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from domains.protocol import Domain
from miniature.writer import BootstrapPolicy
from rstar.protocols import Proposal
from rstar.search import SearchSettings
from tasks.lib import engines
from tasks.lib.engines import RULES, Models, SandboxSettings
from tasks.rollouts import SearchPlan, search_problems

ROOT, REQUESTS, IN_FLIGHT = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])


class SlowPolicy:
    """The bootstrap policy with delays."""

    policy = BootstrapPolicy()

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        with REQUESTS.open("a") as file:
            file.write(f"{seed}\n")
        await asyncio.sleep(0.002 + seed % 7 / 1000)
        return await self.policy.propose(question, prefix, num_candidates=num_candidates, seed=seed)


@asynccontextmanager
async def slow_policy(models: Models, domain: Domain) -> AsyncIterator[SlowPolicy]:
    yield SlowPolicy()


engines.open_policy = slow_policy  # type: ignore[assignment]
settings = SearchSettings(num_rollouts=8, num_candidates=5, rollouts_in_flight=IN_FLIGHT)
plan = SearchPlan(settings, seed=3, more_rollouts=(4,), extra_trees=1, max_in_flight=4)
search = search_problems.fn(
    ROOT, 1, 0, 1, recipe="r", models=Models(RULES), sandbox=SandboxSettings("local"), plan=plan
)  # fmt: skip
asyncio.run(search)  # type: ignore[arg-type]
