"""Does the search keep a GPU busy? Search with the engine in process, beside a flat batch and lockstep on the same one.

    python -m bench.gpu_bench [--policy DIR --ppm DIR] [--trees 16 64] [--in-flight 512]

Prints Markdown, for docs/results.md. Policy and PPM are widened to more than 100 million parameters that say what the
small ones say (bench/widened.py), so that trees look as they do in a run. A rate is tokens generated over the time in
which the policy's engine was working; the GPU's utilisation is the driver's, read ten times a second.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from threading import Event, Thread
from typing import Any

import torch

from bench.engine_bench import LEVELS, SETTINGS, InStep, Lockstep, told
from bench.widened import widen
from domains.mathematics.grading.judge import MathJudge
from miniature.problems import generate
from models.checkpoints import default_device
from models.inprocess.policy import TransformersPolicy
from models.inprocess.scorer import TransformersScorer
from rstar.protocols import Policy, Proposal, StepScorer
from rstar.search import search
from rstar.tree import Tree
from sandbox.providers import open_sandbox
from tasks.lib.concurrency import map_concurrently


class Utilisation:
    """The driver's word on the share of time in which a kernel ran, on average; nan without a GPU."""

    def __init__(self) -> None:
        self._read: list[int] = []

    @property
    def percent(self) -> float:
        return mean(self._read) if self._read else float("nan")

    @contextmanager
    def watched(self) -> Iterator[None]:
        done = Event()
        thread = Thread(target=self._watch, args=(done,), daemon=True)
        if torch.cuda.is_available():
            thread.start()
        try:
            yield
        finally:
            done.set()

    def _watch(self, done: Event) -> None:
        while not done.wait(0.1):
            self._read.append(torch.cuda.utilization())


@dataclass(frozen=True, slots=True)
class Measured:
    """What was done, and what the policy's and the PPM's engines said of it."""

    name: str
    seconds: float
    policy: dict[str, float]
    ppm: dict[str, float]
    utilisation: float
    trees: Sequence[Tree] = ()

    @property
    def rate(self) -> float:
        return self.policy["num_generated_tokens"] / self.policy["busy_seconds"]

    @property
    def expansions(self) -> float:
        return self.policy["num_requests"] / self.seconds

    def row(self, ours: Measured) -> str:
        busy, scoring = (100 * each["busy_seconds"] / self.seconds for each in (self.policy, self.ppm))
        return (
            f"| {self.name} | {self.seconds:.1f} | {self.policy['num_generated_tokens']:,.0f} | {self.rate:,.0f} "
            f"| {100 * ours.rate / self.rate:.1f} % | {self.expansions:.1f} | {busy:.0f} % | {scoring:.0f} % "
            f"| {self.utilisation:.0f} % | {self.policy['num_requests'] / self.policy['num_batches']:.0f} |"
        )


HEADER = (
    "| | s | tokens generated | a second of engine time | search's share of it | expansions a second | policy's engine "
    "busy | PPM's | GPU utilisation | requests a batch |\n|---|---|---|---|---|---|---|---|---|---|"
)


class Flat:
    """The search's own requests, all at once, each candidate as long as the search's were on average."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str], int, int]] = []
        self.lengths: list[int] = []

    def noting(self, policy: Policy) -> Policy:
        outer = self

        class Noting:
            async def propose(
                self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
            ) -> Sequence[Proposal]:
                found = await policy.propose(question, prefix, num_candidates=num_candidates, seed=seed)
                outer.asked.append((question, list(prefix), num_candidates, seed))
                outer.lengths += [each.num_tokens for each in found]
                return found

        return Noting()

    async def repeat(self, policy: TransformersPolicy, at_once: int) -> list[Tree]:
        """Ask again, of an engine that stops at a length alone."""
        policy._end_ids, policy._stop_ids, policy._max_new_tokens = torch.tensor([-1]), [], round(mean(self.lengths))

        async def one(number: int) -> None:
            question, prefix, num_candidates, seed = self.asked[number]
            await policy.propose(question, prefix, num_candidates=num_candidates, seed=seed)

        await map_concurrently(one, range(len(self.asked)), limit=at_once)
        return []


async def bench(policy_dir: Path, ppm_dir: Path, num_trees: int, in_flight: int, options: dict[str, Any]) -> None:
    counts = {level: num_trees * share // sum(LEVELS.values()) for level, share in LEVELS.items()}
    counts["math"] += num_trees - sum(counts.values())
    problems = [made.problem for made in generate(counts, seed=0, split="test")]
    async with AsyncExitStack() as stack:
        sandbox, judge = (
            await stack.enter_async_context(open_sandbox("local")),
            await stack.enter_async_context(MathJudge()),
        )
        flat = Flat()

        async def measured(
            name: str, run: Callable[[TransformersPolicy, StepScorer], Awaitable[list[Tree]]]
        ) -> Measured:
            """With engines of its own, so that nothing is cached."""
            async with (
                TransformersPolicy(policy_dir, max_new_tokens=64, **options) as policy,
                TransformersScorer(ppm_dir, max_batch=options["max_batch"]) as scorer,
            ):
                await policy.propose("How many?", [], num_candidates=4, seed=0)  # kernels
                before, watch, began = policy.metrics(), Utilisation(), time.monotonic()
                with watch.watched():
                    trees = await run(policy, scorer)
                seconds = time.monotonic() - began
                done = {key: value - before[key] for key, value in policy.metrics().items()}
                return Measured(name, seconds, done, scorer.metrics(), watch.percent, trees)

        async def tree_of(number: int, policy: Policy, scorer: StepScorer, **rest: Any) -> Tree:
            given = {"policy": policy, "scorer": scorer, "executor": sandbox, "judge": judge}
            return await search(problems[number], **given, settings=SETTINGS, seed=number, **rest)

        async def ours(policy: Policy, scorer: StepScorer) -> list[Tree]:
            noting = flat.noting(policy)
            return await map_concurrently(
                lambda number: tree_of(number, noting, scorer), range(num_trees), limit=in_flight
            )

        async def in_lockstep(policy: Policy, scorer: StepScorer) -> list[Tree]:
            async def one(number: int, barriers: Lockstep) -> Tree:
                step = InStep(barriers, policy, scorer)
                tree = await tree_of(number, step, step, on_rollout=step.ended)
                barriers.leave()
                return tree

            trees: list[Tree] = []
            for at in range(0, num_trees, in_flight):
                batch = range(num_trees)[at : at + in_flight]
                barriers = Lockstep(len(batch))
                trees += await asyncio.gather(*(one(number, barriers) for number in batch))
            return trees

        print(f"\n{HEADER}")
        searched = await measured("search", ours)
        print(searched.row(searched), flush=True)
        batch = await measured("flat batch", lambda policy, _: flat.repeat(policy, in_flight))
        print(batch.row(searched), flush=True)
        lockstep = await measured("lockstep", in_lockstep)
        print(lockstep.row(searched))
    nodes = sum(len(tree.nodes) for tree in searched.trees)
    equal = sum(told(a) == told(b) for a, b in zip(searched.trees, lockstep.trees, strict=True))
    print(
        f"\n{num_trees} trees, {in_flight} at once at most: {nodes} nodes, "
        f"{mean(flat.lengths):.1f} tokens a candidate; "
        f"{equal} trees are equal in lockstep.\nSearch: {searched.expansions / lockstep.expansions:.2f} times "
        "as many expansions a second as lockstep.",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="runs/demo/models/round=4/policy", type=Path)
    parser.add_argument("--ppm", default="runs/demo/models/round=4/ppm", type=Path)
    parser.add_argument("--trees", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--in-flight", type=int, default=512, help="trees at once")
    parser.add_argument("--max-batch", type=int, default=2048, help="candidates in a batch of an engine")
    given = parser.parse_args()
    device = default_device()
    name = torch.cuda.get_device_name() if device == "cuda" else "the CPU"
    with tempfile.TemporaryDirectory() as folder:
        policy, ppm = Path(folder) / "policy", Path(folder) / "ppm"
        sizes = [widen(small, large) for small, large in ((given.policy, policy), (given.ppm, ppm))]
        print(f"{name}; policy {sizes[0]:,} parameters, PPM {sizes[1]:,}; torch {torch.__version__}", flush=True)
        for num_trees in given.trees:
            options = {"temperature": 0.7, "max_batch": given.max_batch}
            asyncio.run(bench(policy, ppm, num_trees, given.in_flight, options))


if __name__ == "__main__":
    main()
