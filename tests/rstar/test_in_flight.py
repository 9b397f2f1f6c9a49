"""Rollouts in flight: where they go, computed by hand, and that they leave no trace in the tree."""

import asyncio

import pytest

from domains.mathematics.domain import DOMAIN
from rstar.protocols import Execution, PolicyError, Problem, Proposal, Verdict
from rstar.search import SearchSettings, search
from rstar.selection import InFlight, select
from rstar.tree import Tree

NAMES = "abcd"


def step(name, *, first):
    return f"{'<code>' if first else ''}\n# {name}\npass\n<end_of_step>"


class Slow:
    """A world in which all nodes have the same children, and a request is answered only when the test says so."""

    def __init__(self, names=NAMES):
        self.names = names
        self.requests = []
        self.waiting = {}

    async def propose(self, question, prefix, *, num_candidates, seed):
        path = "/".join(text.split("# ")[1].split("\n")[0] for text in prefix)
        self.requests.append(path)
        answer = self.waiting[path] = asyncio.get_running_loop().create_future()
        await answer
        return [Proposal(step(name, first=not prefix)) for name in self.names]

    async def run(self, checkpoint, code):
        return Execution(Verdict.OK, checkpoint=f"{checkpoint}/{code}")

    async def release(self, checkpoint):
        pass

    async def equivalent(self, answer, other):
        return False

    correct = equivalent

    async def answer(self, path):
        self.waiting.pop(path).set_result(None)
        for _ in range(20):
            await asyncio.sleep(0)


async def start_search(world, **more):
    settings = SearchSettings(**{"num_rollouts": 8, "num_candidates": 4, "max_depth": 2, **more})
    engines = {"steps": DOMAIN, "policy": world, "executor": world, "judge": world}
    task = asyncio.create_task(search(Problem("p", "?", "0"), **engines, settings=settings))
    for _ in range(20):
        await asyncio.sleep(0)
    return task


async def test_rollouts_in_flight_go_to_different_children():
    world = Slow()
    task = await start_search(world, rollouts_in_flight=3)
    assert world.requests == [""]  # no rollout can pass the root while it is being expanded
    await world.answer("")
    assert world.requests == ["", "a", "b", "c"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_early_answer_waits_for_the_rollouts_that_started_before_it():
    world = Slow()
    task = await start_search(world, rollouts_in_flight=2)
    await world.answer("")
    await world.answer("b")
    assert world.requests == ["", "a", "b"]
    await world.answer("a")  # both descend to the maximum depth and end there; the next two start
    assert world.requests == ["", "a", "b", "c", "d"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_failure_cancels_the_other_rollouts_and_is_raised_unchanged():
    world = Slow()
    task = await start_search(world, rollouts_in_flight=3)
    await world.answer("")
    world.waiting.pop("a").set_exception(PolicyError("gone"))
    with pytest.raises(PolicyError, match="gone"):
        await task
    assert all(waiting.cancelled() for waiting in world.waiting.values())


def small_tree():
    """Return a tree whose root has two children, visited twice and once, each visit with value +1."""
    tree = Tree.start(Problem("p", "?", "0"), 0)
    first = tree.add(tree.root, index=0, visits=2, value_sum=2.0)
    second = tree.add(tree.root, index=1, visits=1, value_sum=1.0)
    tree.root.visits, tree.root.value_sum = 3, 3.0
    return tree, first, second


def test_a_rollout_in_flight_counts_as_a_visit_with_value_minus_one_and_does_not_change_the_node():
    tree, first, second = small_tree()
    in_flight = InFlight()
    # c = 1: 1 + sqrt(ln 3 / 2) = 1.741 for the first, 1 + sqrt(ln 3) = 2.048 for the second
    assert select(tree.root, in_flight, exploration=1.0) is second
    below = tree.add(second, index=0)
    tree.add(second, index=1)  # keeps `second` open
    in_flight.start([tree.root, second, below])
    # one loss: 1 + sqrt(ln 4 / 2) = 1.833 for the first, (1 - 1) / 2 + sqrt(ln 4 / 2) = 0.833 for the second
    assert select(tree.root, in_flight, exploration=1.0) is first
    assert (second.visits, second.value_sum, in_flight.losses(second)) == (1, 1.0, 1)
    in_flight.end([tree.root, second, below])
    assert select(tree.root, in_flight, exploration=1.0) is second
    assert in_flight.losses(tree.root) == in_flight.losses(second) == 0


def test_a_node_is_blocked_while_every_open_node_below_it_is_being_expanded():
    tree, first, second = small_tree()
    in_flight = InFlight()
    in_flight.start([tree.root, first])
    assert in_flight.is_open(tree.root) and not in_flight.is_open(first)
    in_flight.start([tree.root, second])
    assert not in_flight.is_open(tree.root)
    in_flight.end([tree.root, first])
    assert in_flight.is_open(tree.root) and in_flight.is_open(first) and not in_flight.is_open(second)


def test_a_blocked_node_opens_when_the_expansion_below_it_leaves_an_open_node():
    tree, first, _ = small_tree()
    below = tree.add(first, index=0)
    in_flight = InFlight()
    in_flight.start([tree.root, first, below])
    assert not in_flight.is_open(first)
    tree.add(below, index=0)
    in_flight.end([tree.root, first, below])
    assert in_flight.is_open(first) and in_flight.is_open(below)


def test_another_rollout_counts_as_a_visit_of_the_parent_too():
    tree = Tree.start(Problem("p", "?", "0"), 0)
    often = tree.add(tree.root, index=0, visits=10, value_sum=5.0)
    once = tree.add(tree.root, index=1, visits=1, value_sum=0.0)
    other = tree.add(tree.root, index=2)
    tree.root.visits = 1
    in_flight = InFlight()
    in_flight.start([tree.root, other])
    # c = 1, N of the parent 2: 0.5 + sqrt(ln 2 / 10) = 0.763 against sqrt(ln 2) = 0.833; with N = 1: 0.5 against 0
    assert select(tree.root, in_flight, exploration=1.0) is once
    in_flight.end([tree.root, other])
    other.closed = True
    assert select(tree.root, in_flight, exploration=1.0) is often
