"""Rollouts under way at once: where they go, by hand, and that nothing of it stays in the tree."""

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
    """Every node has the same children; an answer is given only when the test says so."""

    def __init__(self, names=NAMES):
        self.names = names
        self.asked = []
        self.waiting = {}

    async def propose(self, question, prefix, *, num_candidates, seed):
        path = "/".join(text.split("# ")[1].split("\n")[0] for text in prefix)
        self.asked.append(path)
        answered = self.waiting[path] = asyncio.get_running_loop().create_future()
        await answered
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


async def started(world, **more):
    settings = SearchSettings(**{"num_rollouts": 8, "num_candidates": 4, "max_depth": 2, **more})
    given = {"steps": DOMAIN, "policy": world, "executor": world, "judge": world}
    task = asyncio.create_task(search(Problem("p", "?", "0"), **given, settings=settings))
    for _ in range(20):
        await asyncio.sleep(0)
    return task


async def test_rollouts_under_way_go_to_different_children():
    world = Slow()
    task = await started(world, rollouts_in_flight=3)
    assert world.asked == [""]  # nobody can pass the root while it is being expanded
    await world.answer("")
    assert world.asked == ["", "a", "b", "c"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_early_answer_waits_for_the_rollouts_begun_before_it():
    world = Slow()
    task = await started(world, rollouts_in_flight=2)
    await world.answer("")
    await world.answer("b")
    assert world.asked == ["", "a", "b"]
    await world.answer("a")  # both go down to the maximum depth and end there; the next two begin
    assert world.asked == ["", "a", "b", "c", "d"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_failure_ends_the_other_rollouts_and_is_raised_as_itself():
    world = Slow()
    task = await started(world, rollouts_in_flight=3)
    await world.answer("")
    world.waiting.pop("a").set_exception(PolicyError("gone"))
    with pytest.raises(PolicyError, match="gone"):
        await task
    assert all(waiting.cancelled() for waiting in world.waiting.values())


def small_tree():
    """The root with two children, visited twice and once, each worth +1 a visit."""
    tree = Tree.start(Problem("p", "?", "0"), 0)
    one = tree.add(tree.root, index=0, visits=2, value_sum=2.0)
    other = tree.add(tree.root, index=1, visits=1, value_sum=1.0)
    tree.root.visits, tree.root.value_sum = 3, 3.0
    return tree, one, other


def test_another_rollout_counts_as_a_lost_visit_and_leaves_the_node_as_it_is():
    tree, one, other = small_tree()
    in_flight = InFlight()
    # c = 1: 1 + sqrt(ln 3 / 2) = 1.741 for the first, 1 + sqrt(ln 3) = 2.048 for the other
    assert select(tree.root, in_flight, exploration=1.0) is other
    below = tree.add(other, index=0)
    tree.add(other, index=1)  # open: `other` still admits a rollout
    in_flight.start([tree.root, other, below])
    # one loss: 1 + sqrt(ln 4 / 2) = 1.833 for the first, (1 - 1) / 2 + sqrt(ln 4 / 2) = 0.833 for the other
    assert select(tree.root, in_flight, exploration=1.0) is one
    assert (other.visits, other.value_sum, in_flight.losses(other)) == (1, 1.0, 1)
    in_flight.end([tree.root, other, below])
    assert select(tree.root, in_flight, exploration=1.0) is other
    assert in_flight.losses(tree.root) == in_flight.losses(other) == 0


def test_a_node_is_blocked_while_all_that_is_open_below_it_is_being_expanded():
    tree, one, other = small_tree()
    in_flight = InFlight()
    in_flight.start([tree.root, one])
    assert in_flight.admits(tree.root) and not in_flight.admits(one)
    in_flight.start([tree.root, other])
    assert not in_flight.admits(tree.root)
    in_flight.end([tree.root, one])
    assert in_flight.admits(tree.root) and in_flight.admits(one) and not in_flight.admits(other)


def test_a_blocked_node_opens_when_the_expansion_below_it_leaves_something_open():
    tree, one, _ = small_tree()
    below = tree.add(one, index=0)
    in_flight = InFlight()
    in_flight.start([tree.root, one, below])
    assert not in_flight.admits(one)
    tree.add(below, index=0)
    in_flight.end([tree.root, one, below])
    assert in_flight.admits(one) and in_flight.admits(below)
