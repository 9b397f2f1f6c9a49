"""Deep thinking within a budget: rollout by rollout, with the best trajectory at hand at any time.

Section 4.1, "Inference"; the paper counts trajectories, people also count tokens and seconds. With a budget of so many
trajectories the result is that of `rstar.inference.thinking.think` with as many rollouts.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from rstar.annotation import Annotation
from rstar.equivalence import Equivalence
from rstar.inference.thinking import ScoredTrajectory, conclude, scored_trajectories, scored_trajectory
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
    UserError,
)
from rstar.search import SearchSettings, search
from rstar.tree import Node, Tree

Limit = TypeVar("Limit", int, float)
_BUDGET = re.compile(r"(?P<count>\d{1,15})(?P<tokens>t?)|(?P<seconds>\d{1,9}(\.\d{1,9})?)s")


@dataclass(frozen=True, slots=True)
class Budget:
    """What a search may cost; of several limits the one reached first counts, and at least one is given.

    A trajectory is one rollout, also where it ends without an answer. The rollout that exceeds `tokens` (generated, all
    candidates) is the last one; `seconds` of wall-clock time end the search wherever it is.
    """

    trajectories: int | None = None
    tokens: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.trajectories, self.tokens, self.seconds) if limit is not None]
        if not limits or not all(limit > 0 for limit in limits):
            raise UserError(f"a budget has at least one limit, and each is more than 0; got {self}")

    @classmethod
    def read(cls, text: str) -> Budget:
        """Read `16` (trajectories), `20000t` (tokens) or `30s` (seconds); raises UserError."""
        match = _BUDGET.fullmatch(text.strip())
        if match is None or not float(match["count"] or match["seconds"]):
            raise UserError(
                f"budget {text!r}: give a number of trajectories (16), of tokens (20000t) or of seconds (30s), "
                "more than 0"
            )
        if match["seconds"]:
            return cls(seconds=float(match["seconds"]))
        return cls(tokens=int(match["count"])) if match["tokens"] else cls(trajectories=int(match["count"]))

    def within(self, other: Budget) -> Budget:
        """The narrower of the two in every limit."""
        return Budget(
            _least(self.trajectories, other.trajectories),
            _least(self.tokens, other.tokens),
            _least(self.seconds, other.seconds),
        )

    def __str__(self) -> str:
        limits = (
            (self.trajectories, "trajectory", "trajectories"),
            (self.tokens, "token", "tokens"),
            (self.seconds, "second", "seconds"),
        )
        shown = ((f"{limit:g}" if one == "second" else str(limit), one, many) for limit, one, many in limits if limit)
        return ", ".join(f"{number} {one if number == '1' else many}" for number, one, many in shown)


def _least(one: Limit | None, other: Limit | None) -> Limit | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)


class Ending(StrEnum):
    """Why a search ended."""

    BUDGET = "budget"
    CLOSED = "closed"  # the tree has nothing left to try
    STOPPED = "stopped"
    UNFINISHED = "unfinished"  # it goes on, or was cancelled or failed


@dataclass(frozen=True, slots=True)
class Solution:
    """What a search has found so far, and what it has cost."""

    best: ScoredTrajectory | None  # the best score; of equals the one found first
    runner_up: ScoredTrajectory | None  # the best with another answer, by the judge
    majority: str | None
    weighted_majority: str | None
    num_trajectories: int  # that came to an answer
    num_rollouts: int
    num_tokens: int  # generated, all candidates; not of expansions that the end of the search cut off
    prompt_tokens: int  # of the question's prompt, once
    seconds: float
    ending: Ending
    silent: type[InfrastructureError] | None = None  # of the engine that was asked in vain: nothing was ever expanded

    @property
    def failure(self) -> InfrastructureError | None:
        """What to raise for a search that an engine kept waiting from its begin to its end; None for any other."""
        if self.silent is None:
            return None
        name = "policy" if self.silent is PolicyError else "PPM"
        return self.silent(
            f"the {name} gave no answer in {self.seconds:.1f} s: its engine is not there, or needs more time"
        )


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
    """Think about a problem, or a question, until the budget is used or nothing is left to try.

    `settings.num_rollouts` and `settings.annotation` are not read: the budget says how long, and inference sees no
    truth. For one that can be stopped, or looked at while it goes on, use `Solving`. Raises InfrastructureError, also
    where the seconds were over before an engine answered at all.
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
    """One search under way: `await run()` once; `stop()` ends it with what it has.

    `best` is the best trajectory so far and `so_far()` the whole solution, at any time: while it runs, after it was
    cancelled, and after it failed. `on_better` is called in the event loop whenever `best` changes.
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
        asked = {"policy": _Policy(policy, self), "scorer": scorer and _Scorer(scorer, self)}
        self._engines = {**asked, "steps": steps, "executor": executor, "judge": judge}
        self._judge, self._settings, self._budget, self._top_k = judge, settings, budget, top_k
        self._on_better = on_better
        self._num_seen = 0  # nodes of the tree
        self._searching: asyncio.Task[Ending] | None = None
        self._stopped = False
        self._cut_by: Ending | None = None
        self._cut_short: type[InfrastructureError] | None = None  # the error of the engine that it was waiting for
        self._ending = Ending.UNFINISHED
        self._began: float | None = None
        self._ended: float | None = None

    @property
    def num_tokens(self) -> int:
        return self.tree.num_tokens

    @property
    def num_rollouts(self) -> int:
        """Rollouts that have ended."""
        return sum(node.ended is not None for node in self.tree.nodes)

    @property
    def seconds(self) -> float:
        """Wall-clock time since `run` began, to its end."""
        return 0.0 if self._began is None else (self._ended or time.monotonic()) - self._began

    def stop(self) -> None:
        """End the search at once; `run` returns what it has found."""
        self._stopped = True
        if self._searching:
            self._cut(self._searching, Ending.STOPPED)

    def _cut(self, searching: asyncio.Task[Ending], ending: Ending) -> None:
        """Cancel the search, once: a second time would interrupt it while it gives its checkpoints back."""
        if self._cut_by is None:
            self._cut_by = ending
            searching.cancel()

    @contextmanager
    def _asking(self, error: type[InfrastructureError]) -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            self._cut_short = error
            raise

    async def run(self) -> Solution:
        """Search; raises InfrastructureError, and CancelledError where the caller is cancelled."""
        self._began = time.monotonic()
        searching = self._searching = asyncio.create_task(self._search())
        if self._stopped:
            self._cut(searching, Ending.STOPPED)
        try:
            await asyncio.wait({searching}, timeout=self._budget.seconds)
        finally:
            self._cut(searching, Ending.BUDGET)
            await asyncio.wait({searching})  # it gives its checkpoints back
            self._ended = time.monotonic()
            self._look()
        self._ending = (self._cut_by or Ending.BUDGET) if searching.cancelled() else searching.result()
        return await self.so_far()

    async def so_far(self) -> Solution:
        """The solution that the search's trajectories give now."""
        found = scored_trajectories(self.tree)
        conclusion = await conclude(found, judge=self._judge, top_k=self._top_k)
        best = max(found, key=lambda each: each.score, default=None)
        first = next((node for node in self.tree.nodes if node.parent is self.tree.root), None)
        return Solution(
            best=best,
            runner_up=None if best is None else await self._runner_up(best, found),
            majority=conclusion.majority,
            weighted_majority=conclusion.weighted_majority,
            num_trajectories=len(found),
            num_rollouts=self.num_rollouts,
            num_tokens=self.num_tokens,
            prompt_tokens=first.prompt_tokens if first else 0,
            seconds=self.seconds,
            ending=self._ending,
            silent=self._cut_short if len(self.tree.nodes) == 1 else None,
        )

    async def _search(self) -> Ending:
        # One call for all rollouts: between calls every checkpoint would be given back, and its steps run again.
        limit = self._budget.trajectories or sys.maxsize
        with suppress(_Spent):
            await search(
                self.tree.problem,
                **self._engines,  # type: ignore[arg-type]
                settings=replace(self._settings, num_rollouts=limit, annotation=Annotation.INFERENCE),
                tree=self.tree,
                on_rollout=self._after_rollout,
            )
        return Ending.CLOSED if self.tree.root.closed else Ending.BUDGET

    def _after_rollout(self, tree: Tree, end: Node) -> None:
        self._look()
        if self._budget.tokens is not None and tree.num_tokens >= self._budget.tokens:
            raise _Spent

    def _look(self) -> None:
        """Tell of a better trajectory among the nodes that are new."""
        new, self._num_seen = self.tree.nodes[self._num_seen :], len(self.tree.nodes)
        better = self.best
        for found in (scored_trajectory(node) for node in new if node.terminal and node.valid):
            if better is None or found.score > better.score:
                better = found
        if better is not None and better is not self.best:
            self.best = better
            if self._on_better:
                self._on_better(better)

    async def _runner_up(self, best: ScoredTrajectory, found: list[ScoredTrajectory]) -> ScoredTrajectory | None:
        equal = Equivalence(self._judge)
        for other in sorted(found, key=lambda each: -each.score):
            if not await equal(best.answer, other.answer):
                return other
        return None


@dataclass(frozen=True, slots=True)
class _Policy:
    """A policy that tells a search of questions that were cut short."""

    policy: Policy
    solving: Solving

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        with self.solving._asking(PolicyError):
            return await self.policy.propose(question, prefix, num_candidates=num_candidates, seed=seed)


@dataclass(frozen=True, slots=True)
class _Scorer:
    """A scorer that does the same."""

    scorer: StepScorer
    solving: Solving

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        with self.solving._asking(ScorerError):
            return await self.scorer.score(question, prefix, candidates)


class _Spent(Exception):
    """The budget's tokens are used: ends the search after a rollout."""
