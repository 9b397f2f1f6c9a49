"""A terminal that the judge cannot decide is neither right nor wrong: no visit, no value, no trajectory."""

import pytest

from domains.mathematics.domain import DOMAIN
from rstar.annotation import Annotation
from rstar.merging import merge_trees
from rstar.pairs import extract_pairs
from rstar.protocols import Problem
from rstar.search import SearchSettings, search
from rstar.trajectories import label_is_suspect, trajectories


class Judge:
    """Cannot decide about 7."""

    async def correct(self, answer, truth):
        return None if answer == "7" else answer == truth

    async def equivalent(self, answer, other):
        return None if "7" in (answer, other) else answer == other


@pytest.fixture
def searched(golden):
    async def searched(policy, answers, num_rollouts, judge=None, truth="42"):
        world = {"policy": {path: list(names) for path, names in policy.items()}, "invalid": [], "answers": answers}
        return await search(
            Problem("p", "?", truth),
            steps=golden.LETTERS,
            policy=golden.ScriptedPolicy(world),
            executor=golden.ScriptedExecutor(world),
            judge=judge or Judge(),
            settings=SearchSettings(num_rollouts=num_rollouts, num_candidates=2),
        )

    return searched


async def test_it_is_closed_and_ends_the_rollout_without_a_visit_or_a_value(searched, at):
    tree = await searched({"": "ab", "a": "c"}, {"a/c": "7"}, 1)
    terminal = at(tree, "a/c")
    assert (terminal.correct, terminal.closed, terminal.visits, terminal.value_sum) == (None, True, 0, 0.0)
    assert [(node.visits, node.value_sum) for node in (at(tree, "a"), tree.root)] == [(0, 0.0)] * 2
    assert at(tree, "a").ended == 0 and at(tree, "a").closed and not tree.root.closed
    assert not at(tree, "b").expanded


async def test_only_decided_siblings_are_backed_up(searched, at):
    tree = await searched({"": "ab"}, {"a": "7", "b": "42"}, 1)
    assert (tree.root.visits, tree.root.value_sum) == (1, 1.0)
    assert at(tree, "b").correct is True


async def test_it_gives_no_trajectory_and_is_no_evidence_for_pairs(searched):
    tree = await searched({"": "ab", "a": "c", "b": "d"}, {"a/c": "7", "b/d": "42"}, 4)
    assert [trajectory.answer for trajectory in trajectories(tree)] == ["42"]
    assert extract_pairs(tree) == []


@pytest.mark.parametrize("undecided_first", [True, False])
async def test_of_a_decided_and_an_undecided_verdict_the_decided_one_holds(searched, at, golden, undecided_first):
    undecided = await searched({"": "a"}, {"a": "7"}, 1)
    decided = await searched({"": "a"}, {"a": "7"}, 1, golden.ExactJudge(), truth="7")
    trees = [undecided, decided] if undecided_first else [decided, undecided]
    merged = at(merge_trees(trees, DOMAIN), "a")
    assert (merged.correct, merged.visits, merged.value_sum) == (True, 1, 1.0)


def test_its_value_is_none_in_data_generation_and_the_ppms_score_at_inference():
    for annotation in (Annotation.TERMINAL, Annotation.PPM):
        assert annotation.terminal_value(correct=None, score=0.5) is None
    assert Annotation.INFERENCE.terminal_value(correct=None, score=0.5) == 0.5


def test_a_synthetic_problem_without_a_decided_trajectory_is_dropped():
    assert label_is_suspect([])
