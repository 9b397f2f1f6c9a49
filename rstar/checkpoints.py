"""Checkpoints: the interpreter states that executed steps left behind, and when each is released.

Section 3.2, code execution: the code of a step continues from the state of its prefix. A reloaded tree has no states,
so its prefixes are run again, step by step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from rstar.protocols import Execution, Executor, InfrastructureError, StepFormat, Verdict
from rstar.tree import Node


class Checkpoints:
    """Runs code in one tree and keeps track of the checkpoints that the tree holds."""

    def __init__(self, executor: Executor, steps: StepFormat) -> None:
        self._executor = executor
        self._steps = steps
        self._held: set[str] = set()

    async def run_after(self, parent: Node, codes: Sequence[str]) -> list[Execution]:
        """Run all `codes` at once, each in the state that `parent` left.

        If the prefix has to be run again and fails, its failure is the result of every code.
        """
        if parent.parent is not None and parent.checkpoint is None:
            replayed = await self._replay(parent)
            if replayed.verdict is not Verdict.OK:
                return [replayed] * len(codes)
            parent.checkpoint = replayed.checkpoint
        runs = (self._run(parent.checkpoint, code) for code in codes)
        # Wait for all even if one fails: the checkpoints of the others must be known before they can be released.
        results = await asyncio.gather(*runs, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, Execution)]

    async def release(self, nodes: Sequence[Node]) -> None:
        """Release the checkpoints of `nodes`."""
        checkpoints = {node.checkpoint for node in nodes if node.checkpoint is not None}
        for node in nodes:
            node.checkpoint = None
        await self._release(checkpoints)

    async def release_all(self, nodes: Sequence[Node]) -> None:
        """Release every checkpoint that the tree holds; `nodes` are all its nodes."""
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
        if len(checkpoints) == 1:  # the common case, which needs no task
            await self._release_one(*checkpoints)
        elif checkpoints:
            await asyncio.gather(*map(self._release_one, sorted(checkpoints)))

    async def _release_one(self, checkpoint: str) -> None:
        with suppress(InfrastructureError):  # a lost sandbox holds no checkpoints
            await self._executor.release(checkpoint)
