"""The search without its models: what a tree costs, and what is won by not waiting for the slowest tree.

    python -m bench.search_bench [--trees 2000] [--quick]

Prints Markdown, for docs/results.md. Overhead is measured, each time in a process of its own. The comparison with
lockstep is a simulation: requests take the times of `bench.scripted.Latencies` on an asyncio clock that jumps.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.scripted import Scripted, Simulated
from bench.virtual_time import Lockstep, Slots, VirtualLoop, run_virtually
from domains.mathematics.domain import DOMAIN
from rstar.annotation import Annotation
from rstar.journal import JournalledPolicy, JournalledScorer
from rstar.protocols import Policy, Problem, StepScorer
from rstar.search import SearchSettings, search
from rstar.tree import Tree
from store.journal import FileJournal
from tasks.lib.concurrency import collect_seldom, map_concurrently

QUESTION = "Market {}. " + "It sells apples from its baskets. How many are left in the evening? " * 3
OVERHEAD = SearchSettings(num_rollouts=16, num_candidates=8, annotation=Annotation.PPM)
COMPARED = SearchSettings(num_rollouts=4, num_candidates=4, annotation=Annotation.PPM)
SLOTS = {"propose": 8, "run": 4, "score": 8}  # of a replica
RUNAWAYS = 1 / 150  # of the candidates go on to the limit of tokens
CASES = (
    (1, 2, RUNAWAYS),
    (8, 2, RUNAWAYS),
    (64, 2, RUNAWAYS),
    (8, 8, RUNAWAYS),
    (1, 2, 0.0),
    (8, 2, 0.0),
    (64, 2, 0.0),
)
REPEATS = 3


def grow(
    engines: Scripted, num_trees: int, settings: SearchSettings, policy: Policy | None = None,
    scorer: StepScorer | None = None, in_flight: int = 0,
) -> Coroutine[Any, Any, list[Tree]]:  # fmt: skip
    """So many trees, all in flight at once unless told otherwise."""

    async def one(number: int) -> Tree:
        problem = Problem(f"p{number}", QUESTION.format(number), "3")
        given = {"policy": policy or engines, "executor": engines, "judge": engines, "scorer": scorer or engines}
        return await search(problem, steps=DOMAIN, **given, settings=settings, seed=number)

    return map_concurrently(one, range(num_trees), limit=in_flight or num_trees)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def overhead(num_trees: int, in_flight: int, journalled: bool) -> dict[str, float]:
    """CPU and memory of so many trees, in this process; the engines' own share is in it."""
    collect_seldom()  # as the search of a shard does
    engines = Scripted()
    asyncio.run(grow(engines, 20, OVERHEAD))  # imports and caches
    gc.collect()
    engines.num_expansions = 0
    before, start = resident_bytes(), time.process_time()
    with ExitStack() as stack:
        given: tuple[Policy, StepScorer] | tuple[()] = ()
        if journalled:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            journal = stack.enter_context(FileJournal(f"{folder}/journal.jsonl", {"bench": 1}))
            given = JournalledPolicy(engines, journal), JournalledScorer(engines, journal)
        trees = asyncio.run(grow(engines, num_trees, OVERHEAD, *given, in_flight=in_flight))
    seconds = time.process_time() - start
    return {
        "expansions": engines.num_expansions,
        "nodes": sum(len(tree.nodes) for tree in trees),
        "cpu_seconds": seconds,
        "cpu_ms": 1000 * seconds / engines.num_expansions,
        "gb": (resident_bytes() - before) / 2**30,
    }


def measured(num_trees: int, in_flight: int = 0, journalled: bool = False) -> dict[str, float]:
    """The overhead in a process of its own."""
    command = [sys.executable, "-m", "bench.search_bench", "--one", str(num_trees), "--in-flight", str(in_flight)]
    done = subprocess.run([*command, *["--journal"] * journalled], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def best(runs: list[dict[str, float]]) -> dict[str, float]:
    """The run with the least CPU: what else ran on the machine only adds."""
    return min(runs, key=lambda run: run["cpu_seconds"])


def print_overhead(num_trees: int, repeats: int) -> None:
    cases: dict[str, tuple[int, int, bool]] = {
        f"{num_trees // 2:,}, all in flight": (num_trees // 2, 0, False),
        f"{num_trees:,}, all in flight": (num_trees, 0, False),
        f"{num_trees:,}, all in flight, journalled": (num_trees, 0, True),
        f"{2 * num_trees:,}, at most {num_trees:,} in flight": (2 * num_trees, num_trees, False),
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    for _ in range(repeats):  # in turn, so that a slow minute of the machine strikes all alike
        for name, case in cases.items():
            runs[name].append(measured(*case))
    half, whole, journalled, twice = (best(each) for each in runs.values())
    print(f"Scripted engines that answer at once, 8 candidates, 16 rollouts; the least CPU of {repeats} runs.\n")
    print("| trees | expansions | nodes | CPU ms an expansion | expansions a CPU second | memory, GB |")
    print("|---|---|---|---|---|---|")
    for name, run in zip(cases, (half, whole, journalled, twice), strict=True):
        print(f"| {name} | {run['expansions']:,} | {run['nodes']:,} | {run['cpu_ms']:.3f} | {1000 / run['cpu_ms']:,.0f}"
              f" | {run['gb']:.2f} |")  # fmt: skip
    wide, narrow = (100 * (more["cpu_ms"] / less["cpu_ms"] - 1) for more, less in ((whole, half), (twice, whole)))
    print(
        f"\nTwice the trees: {wide:+.1f} % CPU an expansion with twice, {narrow:+.1f} % with as many in flight.",
        end=" ",
    )
    print(f"The journal: {journalled['cpu_ms'] - whole['cpu_ms']:.3f} ms an expansion.")


def ours(replicas: int, num_trees: int, runaways: float) -> tuple[list[Tree], int, float]:
    """Trees, expansions and virtual seconds of requests that go when they are made."""
    engines = Simulated(slots(replicas).pause, runaways)
    trees, seconds = run_virtually(grow(engines, num_trees, COMPARED), VirtualLoop())
    return trees, engines.num_expansions, seconds


def lockstep(replicas: int, num_trees: int, runaways: float) -> tuple[list[Tree], int, float]:
    """The same where all trees wait at each step for the slowest: a barrier each for generation, code and PPM."""
    scheduler = Lockstep(slots(replicas))
    engines = Simulated(scheduler.pause, runaways)
    trees, seconds = run_virtually(grow(engines, num_trees, COMPARED), VirtualLoop(scheduler.release))
    return trees, engines.num_expansions, seconds


def slots(replicas: int) -> Slots:
    return Slots({kind: count * replicas for kind, count in SLOTS.items()})


def print_comparison(cases: Sequence[tuple[int, int, float]]) -> None:
    print("\nSimulated engines: the same trees and seeds under both schedulers, 4 candidates, 4 rollouts.")
    print(f"A replica serves {SLOTS['propose']} requests at once, its PPM {SLOTS['score']}, "
          f"its sandbox {SLOTS['run']} steps.\n")  # fmt: skip
    print("| replicas | trees | trees a slot | runaways | expansions | lockstep, exp/s | ours, exp/s | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for replicas, a_slot, runaways in cases:
        num_trees = replicas * SLOTS["propose"] * a_slot
        trees, expansions, seconds = ours(replicas, num_trees, runaways)
        others, _, longer = lockstep(replicas, num_trees, runaways)
        assert [tree.to_records() for tree in trees] == [tree.to_records() for tree in others], "the trees differ"
        print(f"| {replicas} | {num_trees:,} | {a_slot} | {100 * runaways:.1f} % | {expansions:,} "
              f"| {expansions / longer:,.1f} | {expansions / seconds:,.1f} | {longer / seconds:.2f} |",
              flush=True)  # fmt: skip


def print_in_flight() -> None:
    """How soon a few trees are done when their rollouts overlap; the trees are others, so their answers are counted."""
    print("\n16 trees of 16 rollouts on 8 such replicas, the same simulation without runaways.\n")
    print("| rollouts in flight | expansions | right answers | wrong answers | virtual seconds |")
    print("|---|---|---|---|---|")
    for at_once in (1, 2, 4, 8):
        engines = Simulated(slots(8).pause, 0.0)
        settings = replace(COMPARED, num_rollouts=16, rollouts_in_flight=at_once)
        trees, seconds = run_virtually(grow(engines, 16, settings), VirtualLoop())
        answers = [node.correct for tree in trees for node in tree.nodes if node.terminal]
        right, wrong = answers.count(True), answers.count(False)
        print(f"| {at_once} | {engines.num_expansions:,} | {right} | {wrong} | {seconds:,.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="one run of each, and fewer replicas")
    parser.add_argument("--one", type=int, help="measure so many trees in this process and print JSON")
    parser.add_argument("--in-flight", type=int, default=0, help="with --one: at most so many of them at once")
    parser.add_argument("--journal", action="store_true", help="with --one: journalled")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(overhead(given.one, given.in_flight, given.journal)))
        return
    print_overhead(given.trees, 1 if given.quick else REPEATS)
    print_comparison(CASES[:2] if given.quick else CASES)
    print_in_flight()


if __name__ == "__main__":
    main()
