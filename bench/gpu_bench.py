"""Does the search keep a GPU busy? Search, a flat batch and lockstep with the engines in this process.

    python -m bench.gpu_bench [--policy DIR --ppm DIR] [--trees 16 64] [--in-flight 512]

Prints Markdown for docs/results.md. Policy and PPM are widened to more than 100 million parameters with the outputs of
the small ones (bench/widened.py), so the trees look like those of a run. A rate counts the generated tokens per second
in which the policy's engine worked. The driver reports the GPU utilisation, ten times per second.
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

from bench.widened import widen
from bench.workload import SETTINGS, LockstepEngines, held_out, num_equal, search_in_lockstep
from domains.mathematics.domain import DOMAIN
from models.checkpoints import default_device
from models.inprocess.policy import TransformersPolicy
from models.inprocess.scorer import TransformersScorer
from rstar.protocols import Policy, Proposal, StepScorer
from rstar.search import search
from rstar.tree import Tree
from sandbox.providers import open_sandbox
from tasks.lib.concurrency import map_concurrently


class Utilisation:
    """The mean share of time in which the GPU ran a kernel, as the driver reports it; nan without a GPU."""

    def __init__(self) -> None:
        self._samples: list[int] = []

    @property
    def percent(self) -> float:
        return mean(self._samples) if self._samples else float("nan")

    @contextmanager
    def sampled(self) -> Iterator[None]:
        done = Event()
        thread = Thread(target=self._sample, args=(done,), daemon=True)
        if torch.cuda.is_available():
            thread.start()
        try:
            yield
        finally:
            done.set()

    def _sample(self, done: Event) -> None:
        while not done.wait(0.1):
            self._samples.append(torch.cuda.utilization())


@dataclass(frozen=True, slots=True)
class Result:
    """One measurement, with the metrics of both engines."""

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

    def row(self, search: Result) -> str:
        busy, scoring = (100 * each["busy_seconds"] / self.seconds for each in (self.policy, self.ppm))
        return (
            f"| {self.name} | {self.seconds:.1f} | {self.policy['num_generated_tokens']:,.0f} | {self.rate:,.0f} "
            f"| {100 * search.rate / self.rate:.1f} % | {self.expansions:.1f} | {busy:.0f} % | {scoring:.0f} % "
            f"| {self.utilisation:.0f} % | {self.policy['num_requests'] / self.policy['num_batches']:.0f} |"
        )


HEADER = (
    "| | s | generated tokens | per second of engine time | search relative to it | expansions per second "
    "| policy's engine busy | PPM's | GPU utilisation | requests per batch |\n|---|---|---|---|---|---|---|---|---|---|"
)


class FlatBatch:
    """The search's own requests, sent again without waiting for one another and with equal output lengths."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, list[str], int, int]] = []
        self.lengths: list[int] = []

    def recording(self, policy: Policy) -> Policy:
        """Return the policy, with its requests and output lengths recorded."""
        batch = self

        class Recording:
            async def propose(
                self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
            ) -> Sequence[Proposal]:
                proposals = await policy.propose(question, prefix, num_candidates=num_candidates, seed=seed)
                batch.requests.append((question, list(prefix), num_candidates, seed))
                batch.lengths += [proposal.num_tokens for proposal in proposals]
                return proposals

        return Recording()

    async def run(self, policy: TransformersPolicy, in_flight: int) -> list[Tree]:
        """Send the requests to an engine that stops at the mean output length only."""
        policy._end_ids, policy._stop_ids, policy._max_new_tokens = torch.tensor([-1]), [], round(mean(self.lengths))

        async def one(number: int) -> None:
            question, prefix, num_candidates, seed = self.requests[number]
            await policy.propose(question, prefix, num_candidates=num_candidates, seed=seed)

        await map_concurrently(one, range(len(self.requests)), limit=in_flight)
        return []


async def bench(policy_dir: Path, ppm_dir: Path, num_trees: int, in_flight: int, options: dict[str, Any]) -> None:
    problems = held_out(num_trees, seed=0)
    flat = FlatBatch()
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(open_sandbox("local"))
        judge = await stack.enter_async_context(DOMAIN.judge(sandbox))

        async def measure(name: str, run: Callable[[TransformersPolicy, StepScorer], Awaitable[list[Tree]]]) -> Result:
            """Measure `run` with new engines, whose caches are empty."""
            async with (
                TransformersPolicy(policy_dir, domain=DOMAIN, max_new_tokens=64, **options) as policy,
                TransformersScorer(ppm_dir, domain=DOMAIN, max_batch=options["max_batch"]) as scorer,
            ):
                await policy.propose("How many?", [], num_candidates=4, seed=0)  # warm-up
                before, utilisation, began = policy.metrics(), Utilisation(), time.monotonic()
                with utilisation.sampled():
                    trees = await run(policy, scorer)
                seconds = time.monotonic() - began
                counts = {key: value - before[key] for key, value in policy.metrics().items()}
                return Result(name, seconds, counts, scorer.metrics(), utilisation.percent, trees)

        async def search_one(number: int, policy: Policy, scorer: StepScorer, **more: Any) -> Tree:
            engines = {"policy": policy, "scorer": scorer, "executor": sandbox, "judge": judge}
            return await search(problems[number], steps=DOMAIN, **engines, settings=SETTINGS, seed=number, **more)

        async def search_all(policy: Policy, scorer: StepScorer) -> list[Tree]:
            recording = flat.recording(policy)
            return await map_concurrently(
                lambda number: search_one(number, recording, scorer), range(num_trees), limit=in_flight
            )

        async def in_lockstep(policy: Policy, scorer: StepScorer) -> list[Tree]:
            def one(number: int, engines: LockstepEngines) -> Awaitable[Tree]:
                return search_one(number, engines, engines, on_rollout=engines.on_rollout)

            return await search_in_lockstep(one, num_trees, policy, scorer, in_flight=in_flight)

        print(f"\n{HEADER}")
        searched = await measure("search", search_all)
        print(searched.row(searched), flush=True)
        batch = await measure("flat batch", lambda policy, _: flat.run(policy, in_flight))
        print(batch.row(searched), flush=True)
        lockstep = await measure("lockstep", in_lockstep)
        print(lockstep.row(searched))
    nodes = sum(len(tree.nodes) for tree in searched.trees)
    print(
        f"\n{num_trees} trees, at most {in_flight} at a time: {nodes} nodes, {mean(flat.lengths):.1f} tokens per "
        f"candidate; {num_equal(searched.trees, lockstep.trees)} trees are equal in lockstep.\n"
        f"Search: {searched.expansions / lockstep.expansions:.2f} times the expansions per second of lockstep.",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--policy", default="runs/demo/models/round=4/policy", type=Path, help="checkpoint; %(default)s"
    )
    parser.add_argument("--ppm", default="runs/demo/models/round=4/ppm", type=Path, help="checkpoint; %(default)s")
    parser.add_argument("--trees", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--in-flight", type=int, default=512, help="trees at a time")
    parser.add_argument("--max-batch", type=int, default=2048, help="candidates in a batch of an engine")
    options = parser.parse_args()
    device = default_device()
    name = torch.cuda.get_device_name() if device == "cuda" else "the CPU"
    with tempfile.TemporaryDirectory() as folder:
        policy, ppm = Path(folder) / "policy", Path(folder) / "ppm"
        sizes = [widen(small, large) for small, large in ((options.policy, policy), (options.ppm, ppm))]
        print(f"{name}; policy {sizes[0]:,} parameters, PPM {sizes[1]:,}; torch {torch.__version__}", flush=True)
        for num_trees in options.trees:
            engine_options = {"temperature": 0.7, "max_batch": options.max_batch}
            asyncio.run(bench(policy, ppm, num_trees, options.in_flight, engine_options))


if __name__ == "__main__":
    main()
