"""The states that executed steps left behind: where a candidate's code continues, and when a state is given back.

Section 3.2, code execution. A tree that was reloaded has no live states: its prefix is run again, step by step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from rstar.protocols import Execution, Executor, InfrastructureError, StepFormat, Verdict
from rstar.tree import Node


class Checkpoints:
    """An executor that knows which of its checkpoints this tree still holds."""

    def __init__(self, executor: Executor, steps: StepFormat) -> None:
        self._executor = executor
        self._steps = steps
        self._held: set[str] = set()

    async def run_below(self, parent: Node, codes: Sequence[str]) -> list[Execution]:
        """Run each of `codes` in the state that `parent` left.

        Where the prefix does not run any more, that is every code's verdict.
        """
        if parent.parent is not None and parent.checkpoint is None:
            replayed = await self._replay(parent)
            if replayed.verdict is not Verdict.OK:
                return [replayed] * len(codes)
            parent.checkpoint = replayed.checkpoint
        runs = (self._run(parent.checkpoint, code) for code in codes)
        # All are awaited even where one raised: what the others hold must be known before it is given back.
        results = await asyncio.gather(*runs, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, Execution)]

    async def release(self, nodes: Sequence[Node]) -> None:
        spent = {node.checkpoint for node in nodes if node.checkpoint is not None}
        for node in nodes:
            node.checkpoint = None
        await self._release(spent)

    async def release_all(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            node.checkpoint = None
        await self._release(set(self._held))

    async def _replay(self, node: Node) -> Execution:
        checkpoint: str | None = None
        for step in node.path():
            execution = await self._run(checkpoint, self._steps.code_of(step.text))
            if checkpoint is not None:
                await self._release({checkpoint})
            if execution.verdict is not Verdict.OK:
                break
            checkpoint = execution.checkpoint
        return execution

    async def _run(self, checkpoint: str | None, code: str) -> Execution:
        execution = await self._executor.run(checkpoint, code)
        if execution.checkpoint is not None:
            self._held.add(execution.checkpoint)
        return execution

    async def _release(self, checkpoints: set[str]) -> None:
        self._held -= checkpoints
        if len(checkpoints) == 1:  # the common case, without the cost of a task
            await self._give_back(*checkpoints)
        elif checkpoints:
            await asyncio.gather(*map(self._give_back, sorted(checkpoints)))

    async def _give_back(self, checkpoint: str) -> None:
        with suppress(InfrastructureError):  # a lost sandbox has nothing left to give back
            await self._executor.release(checkpoint)
