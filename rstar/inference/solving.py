"""Deep thinking within a budget. The best trajectory so far can be read at any time.

Section 4.1, "Inference". With a budget of n trajectories the result is that of `rstar.inference.thinking.think` with n
rollouts.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from rstar.annotation import Annotation
from rstar.equivalence import Equivalence
from rstar.inference.budget import Budget
from rstar.inference.solution import Ending, Solution
from rstar.inference.thinking import ScoredTrajectory, best_scored, conclude, scored_trajectories, scored_trajectory
from rstar.protocols import (
    Executor,
    InfrastructureError,
    Judge,
    Policy,
    PolicyError,
    Problem,
    Proposal,
    ScorerError,
    StepFormat,
    StepScorer,
)
from rstar.search import SearchSettings, search
from rstar.tree import Node, Tree


async def solve(
    problem: Problem | str,
    *,
    steps: StepFormat,
    policy: Policy,
    scorer: StepScorer,
    executor: Executor,
    judge: Judge,
    settings: SearchSettings,
    budget: Budget,
    seed: int = 0,
    top_k: int | None = None,
    on_better: Callable[[ScoredTrajectory], None] | None = None,
) -> Solution:
    """Think about a problem, or a question, until the budget is used up or no open node is left.

    `settings.num_rollouts` and `settings.annotation` are ignored: the budget limits the search, and inference does not
    see the ground truth. Use `Solving` for a search that can be stopped or watched. Raises InfrastructureError, also if
    the time was up before an engine answered at all.
    """
    solving = Solving(
        problem,
        steps=steps,
        policy=policy,
        scorer=scorer,
        executor=executor,
        judge=judge,
        settings=settings,
        budget=budget,
        seed=seed,
        top_k=top_k,
        on_better=on_better,
    )
    solution = await solving.run()
    if failure := solution.failure:
        raise failure
    return solution


class Solving:
    """A search that can be stopped and watched. `await run()` once; `stop()` ends it early.

    `best` is the best trajectory so far and `so_far()` the whole solution. Both are valid while the search runs, and
    after it was cancelled or failed. `on_better` is called in the event loop whenever `best` changes.
    """

    def __init__(
        self,
        problem: Problem | str,
        *,
        steps: StepFormat,
        policy: Policy,
        scorer: StepScorer,
        executor: Executor,
        judge: Judge,
        settings: SearchSettings,
        budget: Budget,
        seed: int = 0,
        top_k: int | None = None,
        on_better: Callable[[ScoredTrajectory], None] | None = None,
    ) -> None:
        problem = Problem("", problem, "") if isinstance(problem, str) else problem
        self.tree = Tree.start(problem, seed)
        self.best: ScoredTrajectory | None = None
        watched = {"policy": _WatchedPolicy(policy, self), "scorer": scorer and _WatchedScorer(scorer, self)}
        self._engines = {**watched, "steps": steps, "executor": executor, "judge": judge}
        self._judge, self._settings, self._budget, self._top_k = judge, settings, budget, top_k
        self._on_better = on_better
        self._num_seen = 0  # nodes that `_update_best` has seen
        self._task: asyncio.Task[Ending] | None = None
        self._stopped = False
        self._cancelled_for: Ending | None = None
        self._interrupted: type[InfrastructureError] | None = None  # error of the engine whose request was cancelled
        self._ending = Ending.UNFINISHED
        self._start_time: float | None = None
        self._end_time: float | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens generated so far."""
        return self.tree.num_tokens

    @property
    def num_rollouts(self) -> int:
        """Rollouts that have ended."""
        return sum(node.ended is not None for node in self.tree.nodes)

    @property
    def seconds(self) -> float:
        """Wall-clock time of `run` so far."""
        return 0.0 if self._start_time is None else (self._end_time or time.monotonic()) - self._start_time

    def stop(self) -> None:
        """End the search at once. `run` then returns what was found."""
        self._stopped = True
        if self._task:
            self._cancel(self._task, Ending.STOPPED)

    async def run(self) -> Solution:
        """Search and return the solution.

        Raises InfrastructureError if an engine, the sandbox or the judge died.
        """
        self._start_time = time.monotonic()
        task = self._task = asyncio.create_task(self._search())
        if self._stopped:
            self._cancel(task, Ending.STOPPED)
        try:
            await asyncio.wait({task}, timeout=self._budget.seconds)
        finally:
            self._cancel(task, Ending.BUDGET)
            await asyncio.wait({task})  # until it has released its checkpoints
            self._end_time = time.monotonic()
            self._update_best()
        self._ending = (self._cancelled_for or Ending.BUDGET) if task.cancelled() else task.result()
        return await self.so_far()

    async def so_far(self) -> Solution:
        """Return the solution from the trajectories found so far."""
        trajectories = scored_trajectories(self.tree)
        conclusion = await conclude(trajectories, judge=self._judge, top_k=self._top_k)
        best = best_scored(trajectories)
        first = next((node for node in self.tree.nodes if node.parent is self.tree.root), None)
        return Solution(
            best=best,
            runner_up=None if best is None else await self._runner_up(best, trajectories),
            majority=conclusion.majority,
            weighted_majority=conclusion.weighted_majority,
            num_trajectories=len(trajectories),
            num_rollouts=self.num_rollouts,
            num_tokens=self.num_tokens,
            prompt_tokens=first.prompt_tokens if first else 0,
            seconds=self.seconds,
            ending=self._ending,
            unresponsive=self._interrupted if len(self.tree.nodes) == 1 else None,
        )

    def _cancel(self, task: asyncio.Task[Ending], ending: Ending) -> None:
        """Cancel the search, but only once: a second time would interrupt the release of its checkpoints."""
        if self._cancelled_for is None:
            self._cancelled_for = ending
            task.cancel()

    @contextmanager
    def _watching(self, error: type[InfrastructureError]) -> Iterator[None]:
        """Remember which engine was asked when the search was cancelled."""
        try:
            yield
        except asyncio.CancelledError:
            self._interrupted = error
            raise

    async def _search(self) -> Ending:
        # One call for all rollouts: each call releases its checkpoints at its end, and the next would run steps again.
        limit = self._budget.trajectories or sys.maxsize
        with suppress(_TokensUsed):
            await search(
                self.tree.problem,
                **self._engines,  # type: ignore[arg-type]
                settings=replace(self._settings, num_rollouts=limit, annotation=Annotation.INFERENCE),
                tree=self.tree,
                on_rollout=self._after_rollout,
            )
        return Ending.CLOSED if self.tree.root.closed else Ending.BUDGET

    def _after_rollout(self, tree: Tree, end: Node) -> None:
        self._update_best()
        if self._budget.tokens is not None and tree.num_tokens >= self._budget.tokens:
            raise _TokensUsed

    def _update_best(self) -> None:
        """Look for a better trajectory among the nodes added since the last call."""
        new, self._num_seen = self.tree.nodes[self._num_seen :], len(self.tree.nodes)
        best = self.best
        for trajectory in (scored_trajectory(node) for node in new if node.terminal and node.valid):
            if best is None or trajectory.score > best.score:
                best = trajectory
        if best is not None and best is not self.best:
            self.best = best
            if self._on_better:
                self._on_better(best)

    async def _runner_up(
        self, best: ScoredTrajectory, trajectories: Sequence[ScoredTrajectory]
    ) -> ScoredTrajectory | None:
        equivalent = Equivalence(self._judge)
        for other in sorted(trajectories, key=lambda trajectory: -trajectory.score):
            if not await equivalent(best.answer, other.answer):
                return other
        return None


@dataclass(frozen=True, slots=True)
class _WatchedPolicy:
    """A policy that tells its search when a request is cancelled."""

    policy: Policy
    solving: Solving

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        with self.solving._watching(PolicyError):
            return await self.policy.propose(question, prefix, num_candidates=num_candidates, seed=seed)


@dataclass(frozen=True, slots=True)
class _WatchedScorer:
    """A scorer that tells its search when a request is cancelled."""

    scorer: StepScorer
    solving: Solving

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        with self.solving._watching(ScorerError):
            return await self.scorer.score(question, prefix, candidates)


class _TokensUsed(Exception):
    """Ends the search after the rollout that has used up the budget's tokens."""
