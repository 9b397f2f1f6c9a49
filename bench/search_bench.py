"""The search without models: the CPU time and memory of a tree, and the speed of the search against lockstep.

    python -m bench.search_bench [--trees 2000] [--quick]

Prints Markdown for docs/results.md. CPU time and memory are measured, in a new process each time. The comparison with
lockstep is simulated: requests take the times of `bench.scripted.Latencies` on the clock of `bench.virtual_time`.
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
from tasks.lib.concurrency import map_concurrently, relax_garbage_collection

QUESTION = "Market {}. " + "It sells apples from its baskets. How many are left in the evening? " * 3
OVERHEAD = SearchSettings(num_rollouts=16, num_candidates=8, annotation=Annotation.PPM)
COMPARED = SearchSettings(num_rollouts=4, num_candidates=4, annotation=Annotation.PPM)
SLOTS = {"propose": 8, "run": 4, "score": 8}  # of one replica
RUNAWAYS = 1 / 150  # the share of candidates that reach the limit of tokens
CASES = (
    (1, 2, RUNAWAYS),
    (8, 2, RUNAWAYS),
    (64, 2, RUNAWAYS),
    (8, 8, RUNAWAYS),
    (1, 2, 0.0),
    (8, 2, 0.0),
    (64, 2, 0.0),
)  # replicas, trees per slot, runaways
REPEATS = 3


def search_trees(
    engines: Scripted, num_trees: int, settings: SearchSettings, policy: Policy | None = None,
    scorer: StepScorer | None = None, in_flight: int = 0,
) -> Coroutine[Any, Any, list[Tree]]:  # fmt: skip
    """Search `num_trees` trees with at most `in_flight` at a time; 0: all."""

    async def one(number: int) -> Tree:
        problem = Problem(f"p{number}", QUESTION.format(number), "3")
        used = {"policy": policy or engines, "executor": engines, "judge": engines, "scorer": scorer or engines}
        return await search(problem, steps=DOMAIN, **used, settings=settings, seed=number)

    return map_concurrently(one, range(num_trees), limit=in_flight or num_trees)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measure(num_trees: int, in_flight: int, journalled: bool) -> dict[str, float]:
    """Measure CPU time and memory in this process. The figures include the scripted engines."""
    relax_garbage_collection()  # like the search of a shard
    engines = Scripted()
    asyncio.run(search_trees(engines, 20, OVERHEAD))  # for imports and caches
    gc.collect()
    engines.num_expansions = 0
    before, start = resident_bytes(), time.process_time()
    with ExitStack() as stack:
        wrapped: tuple[Policy, StepScorer] | tuple[()] = ()
        if journalled:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            journal = stack.enter_context(FileJournal(f"{folder}/journal.jsonl", {"bench": 1}))
            wrapped = JournalledPolicy(engines, journal), JournalledScorer(engines, journal)
        trees = asyncio.run(search_trees(engines, num_trees, OVERHEAD, *wrapped, in_flight=in_flight))
    seconds = time.process_time() - start
    return {
        "expansions": engines.num_expansions,
        "nodes": sum(len(tree.nodes) for tree in trees),
        "cpu_seconds": seconds,
        "cpu_ms": 1000 * seconds / engines.num_expansions,
        "gb": (resident_bytes() - before) / 2**30,
    }


def measure_in_new_process(num_trees: int, in_flight: int = 0, journalled: bool = False) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.search_bench", "--one", str(num_trees), "--in-flight", str(in_flight)]
    done = subprocess.run([*command, *["--journal"] * journalled], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def best(runs: list[dict[str, float]]) -> dict[str, float]:
    """Return the run with the least CPU time: other work on the machine can only add to it."""
    return min(runs, key=lambda run: run["cpu_seconds"])


def print_overhead(num_trees: int, repeats: int) -> None:
    cases: dict[str, tuple[int, int, bool]] = {
        f"{num_trees // 2:,}, all in flight": (num_trees // 2, 0, False),
        f"{num_trees:,}, all in flight": (num_trees, 0, False),
        f"{num_trees:,}, all in flight, journalled": (num_trees, 0, True),
        f"{2 * num_trees:,}, at most {num_trees:,} in flight": (2 * num_trees, num_trees, False),
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    for _ in range(repeats):  # one case after the other, so that a slow minute of the machine affects all of them
        for name, case in cases.items():
            runs[name].append(measure_in_new_process(*case))
    half, whole, journalled, twice = (best(each) for each in runs.values())
    print(f"Scripted engines that answer at once, 8 candidates, 16 rollouts; the least CPU time of {repeats} runs.\n")
    print("| trees | expansions | nodes | CPU ms per expansion | expansions per CPU second | memory, GB |")
    print("|---|---|---|---|---|---|")
    for name, run in zip(cases, (half, whole, journalled, twice), strict=True):
        print(f"| {name} | {run['expansions']:,} | {run['nodes']:,} | {run['cpu_ms']:.3f} | {1000 / run['cpu_ms']:,.0f}"
              f" | {run['gb']:.2f} |")  # fmt: skip
    more, later = (100 * (big["cpu_ms"] / small["cpu_ms"] - 1) for big, small in ((whole, half), (twice, whole)))
    print(
        f"\nCPU time per expansion with twice the trees: {more:+.1f} % if all are in flight, {later:+.1f} % with the "
        f"same number in flight. The journal takes {journalled['cpu_ms'] - whole['cpu_ms']:.3f} ms per expansion."
    )


def run_search(replicas: int, num_trees: int, runaways: float) -> tuple[list[Tree], int, float]:
    """Return the trees, expansions and virtual seconds if each request starts as soon as a slot is free."""
    engines = Simulated(slots(replicas).pause, runaways)
    trees, seconds = run_virtually(search_trees(engines, num_trees, COMPARED), VirtualLoop())
    return trees, engines.num_expansions, seconds


def run_lockstep(replicas: int, num_trees: int, runaways: float) -> tuple[list[Tree], int, float]:
    """Return the same if all trees wait for the slowest: at generation, code execution and scoring of every step."""
    scheduler = Lockstep(slots(replicas))
    engines = Simulated(scheduler.pause, runaways)
    trees, seconds = run_virtually(search_trees(engines, num_trees, COMPARED), VirtualLoop(scheduler.release))
    return trees, engines.num_expansions, seconds


def slots(replicas: int) -> Slots:
    return Slots({kind: count * replicas for kind, count in SLOTS.items()})


def print_comparison(cases: Sequence[tuple[int, int, float]]) -> None:
    print("\nSimulated engines: the same trees and seeds under both schedulers, 4 candidates, 4 rollouts.")
    print(f"A replica serves {SLOTS['propose']} requests at the same time, its PPM {SLOTS['score']}, "
          f"its sandbox {SLOTS['run']} steps.\n")  # fmt: skip
    print("| replicas | trees | trees per slot | runaways | expansions | lockstep, exp/s | search, exp/s | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for replicas, per_slot, runaways in cases:
        num_trees = replicas * SLOTS["propose"] * per_slot
        trees, expansions, seconds = run_search(replicas, num_trees, runaways)
        others, _, longer = run_lockstep(replicas, num_trees, runaways)
        assert [tree.to_records() for tree in trees] == [tree.to_records() for tree in others], "the trees differ"
        print(f"| {replicas} | {num_trees:,} | {per_slot} | {100 * runaways:.1f} % | {expansions:,} "
              f"| {expansions / longer:,.1f} | {expansions / seconds:,.1f} | {longer / seconds:.2f} |",
              flush=True)  # fmt: skip


def print_in_flight() -> None:
    """Print how fast a few trees are done if their rollouts overlap. That changes the trees, so answers are counted."""
    print("\n16 trees of 16 rollouts on 8 such replicas, the same simulation without runaways.\n")
    print("| rollouts in flight | expansions | right answers | wrong answers | virtual seconds |")
    print("|---|---|---|---|---|")
    for in_flight in (1, 2, 4, 8):
        engines = Simulated(slots(8).pause, 0.0)
        settings = replace(COMPARED, num_rollouts=16, rollouts_in_flight=in_flight)
        trees, seconds = run_virtually(search_trees(engines, 16, settings), VirtualLoop())
        answers = [node.correct for tree in trees for node in tree.nodes if node.terminal]
        right, wrong = answers.count(True), answers.count(False)
        print(f"| {in_flight} | {engines.num_expansions:,} | {right} | {wrong} | {seconds:,.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="measure once, and simulate fewer replicas")
    parser.add_argument("--one", type=int, metavar="TREES", help="only measure this many trees, and print JSON")
    parser.add_argument("--in-flight", type=int, default=0, help="with --one: trees at a time; 0: all")
    parser.add_argument("--journal", action="store_true", help="with --one: keep a journal")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.in_flight, options.journal)))
        return
    print_overhead(options.trees, 1 if options.quick else REPEATS)
    print_comparison(CASES[:2] if options.quick else CASES)
    print_in_flight()


if __name__ == "__main__":
    main()
