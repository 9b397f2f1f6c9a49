"""Properties of every tree, whatever the policy, the verdicts and the scores, checked on random worlds."""

import asyncio
import random
from dataclasses import replace
from hashlib import blake2b

from hypothesis import given, settings
from hypothesis import strategies as st

from domains.mathematics.domain import DOMAIN
from domains.mathematics.steps import StepKind, kind_of
from rstar.annotation import Annotation
from rstar.merging import merge_trees
from rstar.pairs import extract_pairs
from rstar.protocols import Execution, Problem, Proposal, Verdict
from rstar.search import SearchSettings, search
from rstar.trajectories import trajectories
from rstar.tree import Tree


class World:
    """Policy, executor, scorer and judge in one. Each answer is a hash of the request."""

    def __init__(self, seed, delays=None):
        self.seed = seed
        self.delays = delays
        self.live = set()
        self.num_runs = 0
        self.prefixes = []
        self.num_in_flight = self.max_in_flight = 0

    async def draw(self, *parts):
        for _ in range(self.delays.randrange(4) if self.delays else 0):
            await asyncio.sleep(0)
        digest = blake2b(repr((self.seed, *parts)).encode(), digest_size=8).digest()
        return random.Random(int.from_bytes(digest, "big"))

    async def propose(self, question, prefix, *, num_candidates, seed):
        self.prefixes.append(tuple(prefix))
        self.num_in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.num_in_flight)
        noise = await self.draw("policy", seed, prefix)
        self.num_in_flight -= 1
        return [Proposal(self.step(prefix, noise), num_tokens=noise.randrange(9)) for _ in range(num_candidates)]

    def step(self, prefix, noise):
        name = noise.randrange(4)
        if noise.random() < 0.1:
            return f"no marker {name}"
        if prefix and kind_of(prefix[-1]) is StepKind.LAST_CODE:
            return f"\n<answer>\\boxed{{{name}}}\n<end_of_answer>"
        end = "<end_of_code>" if noise.random() < 0.4 else "<end_of_step>"
        return f"{'' if prefix else '<code>'}\n# {name}\n{end}"

    async def run(self, checkpoint, code):
        state = f"{checkpoint.partition('@')[0]}|{code}" if checkpoint else code
        noise = await self.draw("executor", state)
        if noise.random() < 0.2:
            return Execution(Verdict.TIME_LIMIT)
        assert checkpoint is None or checkpoint in self.live
        self.num_runs += 1
        self.live.add(f"{state}@{self.num_runs}")
        return Execution(Verdict.OK, output=str(noise.randrange(3)), checkpoint=f"{state}@{self.num_runs}")

    async def release(self, checkpoint):
        self.live.remove(checkpoint)

    async def score(self, question, prefix, candidates):
        return [(await self.draw("scorer", prefix, candidate)).uniform(-1, 1) for candidate in candidates]

    async def equivalent(self, answer, other):
        await self.draw("judge")
        return {answer, other} == {"0", "3"}

    correct = equivalent

    async def search(self, setting, tree=None):
        problem = Problem("p", "?", "0")
        return await search(
            problem,
            steps=DOMAIN,
            policy=self,
            executor=self,
            scorer=self,
            judge=self,
            settings=setting,
            seed=self.seed,
            tree=tree,
        )


worlds = st.integers(0, 10**9)
search_settings = st.builds(
    SearchSettings,
    num_rollouts=st.integers(1, 24),
    num_candidates=st.integers(1, 5),
    max_depth=st.integers(1, 6),
    annotation=st.sampled_from(Annotation),
    rollouts_in_flight=st.sampled_from([1, 1, 2, 3, 8]),
)


def pseudo_visits(node, setting):
    return int(setting.annotation.needs_scorer and node.parent is not None and not node.terminal)


@settings(max_examples=60, deadline=None)
@given(worlds, search_settings)
def test_visits_are_those_of_the_children_plus_the_node_s_own(seed, setting):
    tree = asyncio.run(World(seed).search(setting))
    for node in tree.walk():
        below = sum(child.visits - pseudo_visits(child, setting) for child in node.children)
        assert node.visits == below + pseudo_visits(node, setting) + node.terminal + node.dead_end


@settings(max_examples=60, deadline=None)
@given(worlds, search_settings)
def test_q_lies_between_minus_one_and_one(seed, setting):
    tree = asyncio.run(World(seed).search(setting))
    merged = merge_trees([tree, asyncio.run(World(seed + 1).search(setting))], DOMAIN)
    assert all(abs(node.q) <= 1 + 1e-12 for node in [*tree.nodes, *merged.nodes])


@settings(max_examples=60, deadline=None)
@given(worlds, search_settings, st.integers(0, 99))
def test_the_same_seed_gives_the_same_tree_whatever_the_order_of_answers(seed, setting, delays):
    async def all_at_once():
        delayed = (World(seed, random.Random(delays + number)).search(setting) for number in range(3))
        return await asyncio.gather(World(seed).search(setting), *delayed)

    first, *others = asyncio.run(all_at_once())
    assert all(other.to_records() == first.to_records() for other in others)


@settings(max_examples=60, deadline=None)
@given(worlds, search_settings)
def test_a_node_is_closed_exactly_if_no_rollout_can_enter_it(seed, setting):
    tree = asyncio.run(World(seed).search(setting))
    for node in tree.walk():
        exhausted = bool(node.children) and all(child.closed for child in node.children)
        assert node.closed == (node.terminal or node.dead_end or exhausted)
    assert tree.root.closed or tree.num_rollouts == setting.num_rollouts


@settings(max_examples=60, deadline=None)
@given(worlds, search_settings, st.integers(0, 99))
def test_no_node_is_expanded_twice_and_expansions_in_flight_are_limited(seed, setting, delays):
    world = World(seed, random.Random(delays))
    tree = asyncio.run(world.search(setting))
    assert len(world.prefixes) == len(set(world.prefixes)) == sum(node.expanded for node in tree.nodes)
    assert world.max_in_flight <= setting.rollouts_in_flight
    ended = sorted(node.ended for node in tree.nodes if node.ended is not None)
    assert ended == list(range(len(ended)))


@settings(max_examples=40, deadline=None)
@given(worlds, search_settings)
def test_no_checkpoint_outlives_the_search(seed, setting):
    world = World(seed)
    asyncio.run(world.search(setting))
    assert not world.live


@settings(max_examples=40, deadline=None)
@given(worlds, search_settings, st.integers(1, 8))
def test_a_search_that_is_stored_and_continued_equals_the_longer_search(seed, setting, more):
    setting = replace(setting, rollouts_in_flight=1)
    whole = asyncio.run(World(seed).search(replace(setting, num_rollouts=setting.num_rollouts + more)))
    tree = asyncio.run(World(seed).search(setting))
    tree = Tree.from_records(tree.problem, tree.to_records(), DOMAIN)
    tree = asyncio.run(World(seed).search(replace(setting, num_rollouts=more), tree))
    assert tree.to_records() == whole.to_records()


@settings(max_examples=40, deadline=None)
@given(worlds, search_settings)
def test_step_pairs_share_a_parent_and_prefer_the_higher_q(seed, setting):
    tree = asyncio.run(World(seed).search(setting))
    for pair in extract_pairs(tree):
        chosen, rejected = tree.nodes[pair.chosen_id], tree.nodes[pair.rejected_id]
        if pair.kind == "step":
            assert chosen.parent is rejected.parent is tree.nodes[pair.prefix_id]
            assert pair.margin > 0
        else:
            assert chosen.correct is True and rejected.correct is False
    if setting.annotation.sees_truth:
        assert all(trajectory.correct is not None for trajectory in trajectories(tree))
