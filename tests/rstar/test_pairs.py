"""Preference pairs, by hand."""

import pytest

from rstar.pairs import extract_pairs, is_clear, step_pairs, trajectory_pairs
from rstar.protocols import Problem
from rstar.tree import Tree


@pytest.fixture
def tree():
    return Tree.start(Problem("p", "?", "42"), 0)


def grow(tree, name, q, *, right=0, wrong=0, dead_end=False, parent=None):
    """A step with value q below which there are so many right and wrong answers."""
    parent = parent or tree.root
    fields = {"index": len(parent.children), "text": name, "kind": "code"}
    node = tree.add(parent, **fields, visits=4, value_sum=4 * q, dead_end=dead_end)
    for correct in [True] * right + [False] * wrong:
        value = 1.0 if correct else -1.0
        answer = f"{len(tree.nodes)}"
        tree.add(node, index=0, text=answer, answer=answer, correct=correct, visits=1, value_sum=value)
    return node


def names(pairs):
    return [(pair.chosen[0], pair.rejected[0], pair.margin) for pair in pairs]


def test_the_best_two_that_lead_to_a_right_answer_meet_the_worst_two_others_that_fail(tree):
    grow(tree, "a", 0.25, right=1)
    grow(tree, "b", 0.75, right=1, wrong=1)
    grow(tree, "c", 0.5, right=1)
    grow(tree, "d", -0.5, wrong=1)
    grow(tree, "e", -1.0, wrong=1)
    grow(tree, "f", -0.75, dead_end=True)
    assert names(step_pairs(tree)) == [("b", "e", 1.75), ("b", "f", 1.5), ("c", "e", 1.5), ("c", "f", 1.25)]
    assert names(extract_pairs(tree, per_side=1)[:1]) == [("b", "e", 1.75)]
    assert len(extract_pairs(tree, per_side=1)) == 2


def test_a_step_that_leads_to_both_may_be_negative_but_never_on_both_sides(tree):
    for name, q in zip("abc", (0.75, 0.5, 0.25), strict=True):
        grow(tree, name, q, right=1, wrong=1)
    assert names(step_pairs(tree)) == [("a", "c", 0.5), ("b", "c", 0.25)]


def test_a_margin_that_is_not_positive_is_no_pair(tree):
    grow(tree, "a", 0.5, right=1)
    grow(tree, "b", -0.5, right=1)
    grow(tree, "c", -0.5, wrong=1)
    grow(tree, "d", 0.0, wrong=1)
    assert names(step_pairs(tree)) == [("a", "c", 1.0), ("a", "d", 0.5)]


def test_a_step_without_evidence_is_on_neither_side(tree):
    grow(tree, "a", 0.5, right=1)
    grow(tree, "b", -0.9)
    assert step_pairs(tree) == []


def test_terminals_are_not_steps_to_compare(tree):
    grow(tree, "a", 0.0, right=1, wrong=1)
    assert step_pairs(tree) == []


def test_a_pair_knows_its_prefix_and_its_nodes(tree):
    above = grow(tree, "<code>\nx\n<end_of_step>", 0.0)
    good = grow(tree, "good", 0.5, right=1, parent=above)
    bad = grow(tree, "bad", -0.5, wrong=1, parent=above)
    (pair,) = step_pairs(tree)
    assert pair.prefix == ("<code>\nx\n<end_of_step>",)
    assert (pair.prefix_id, pair.chosen_id, pair.rejected_id) == (above.id, good.id, bad.id)
    assert (pair.chosen_q, pair.rejected_q) == (0.5, -0.5)


def test_whole_trajectories_are_compared_best_right_against_worst_wrong(tree):
    grow(tree, "a", 0.5, right=1)  # mean Q 0.75
    grow(tree, "b", 0.0, right=1)  # 0.5
    grow(tree, "c", 0.25, right=1)  # 0.625
    grow(tree, "d", -0.5, wrong=1)  # -0.75
    grow(tree, "e", 0.5, wrong=1)  # -0.25
    grow(tree, "f", 0.0, wrong=1)  # -0.5
    pairs = trajectory_pairs(tree)
    assert names(pairs) == [("a", "d", 1.5), ("a", "f", 1.25), ("c", "d", 1.375), ("c", "f", 1.125)]
    assert {pair.prefix for pair in pairs} == {()}
    assert len(pairs[0].chosen) == 2


def test_problems_all_right_or_all_wrong_give_no_pairs(tree):
    grow(tree, "a", 1.0, right=2)
    grow(tree, "b", 0.5, right=1)
    assert extract_pairs(tree) == []
    other = Tree.start(tree.problem, 0)
    grow(other, "a", -1.0, wrong=1)
    grow(other, "b", -0.5, dead_end=True)
    assert extract_pairs(other) == []


def test_a_pair_is_clear_by_its_margin_and_its_edit_distance():
    assert is_clear(0.5, 20)
    assert not is_clear(0.49, 20)
    assert not is_clear(0.5, 19)
    assert is_clear(0.1, 0, min_margin=0.1, min_edit_distance=0)
