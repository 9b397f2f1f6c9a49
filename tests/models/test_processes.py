from __future__ import annotations

import asyncio
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from models.engine import TransformersPolicy
from models.processes import EngineProcesses
from rstar.protocols import InfrastructureError, UserError

QUESTIONS = [f"Tom has {number} apples. Tom sells 3 apples. What does Tom have at last?" for number in range(12)]


async def ask_all(policy: object) -> list[list[str]]:
    asked = (policy.propose(question, (), num_candidates=2, seed=7) for question in QUESTIONS)
    return [[proposal.text for proposal in proposals] for proposals in await asyncio.gather(*asked)]


def two(policy: Path) -> EngineProcesses:
    return EngineProcesses(
        partial(TransformersPolicy, policy, temperature=0, max_new_tokens=8, device="cpu"), 2, max_batch=64, fork=True
    )


async def test_engines_in_processes_answer_as_one_here_does_and_share_the_problems(small_policy: Path) -> None:
    async with TransformersPolicy(small_policy, temperature=0, max_new_tokens=8, device="cpu") as policy:
        alone, counted = await ask_all(policy), policy.metrics()
    async with two(small_policy) as policy:
        assert await ask_all(policy) == alone
        each = [metrics["num_requests"] for metrics in policy._metrics]
        metrics = policy.metrics()
    assert sum(each) == metrics["num_requests"] == len(QUESTIONS) and min(each) > 0
    assert metrics["num_generated_tokens"] == counted["num_generated_tokens"]
    assert EngineProcesses.peak_bytes > 2**26


async def test_a_users_mistake_is_raised_as_itself(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        async with two(tmp_path):
            pass


async def test_an_engine_whose_process_dies_is_an_infrastructure_error(small_policy: Path) -> None:
    async with two(small_policy) as policy:
        for pool in policy._pools:
            for process in pool._processes.values():
                os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(InfrastructureError, match="an engine's process died"):
            await ask_all(policy)
