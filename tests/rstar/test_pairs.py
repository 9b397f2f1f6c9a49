"""Preference pairs, computed by hand."""

import pytest

from rstar.pairs import extract_pairs, is_clear, step_pairs, trajectory_pairs
from rstar.protocols import Problem
from rstar.tree import Tree


@pytest.fixture
def tree():
    return Tree.start(Problem("p", "?", "42"), 0)


def add_step(tree, name, q, *, right=0, wrong=0, dead_end=False, parent=None):
    """Add a step with Q-value `q` and, below it, `right` correct and `wrong` wrong answers."""
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


def test_the_best_two_steps_with_a_correct_answer_are_paired_with_the_worst_two_others_with_a_failure(tree):
    add_step(tree, "a", 0.25, right=1)
    add_step(tree, "b", 0.75, right=1, wrong=1)
    add_step(tree, "c", 0.5, right=1)
    add_step(tree, "d", -0.5, wrong=1)
    add_step(tree, "e", -1.0, wrong=1)
    add_step(tree, "f", -0.75, dead_end=True)
    assert names(step_pairs(tree)) == [("b", "e", 1.75), ("b", "f", 1.5), ("c", "e", 1.5), ("c", "f", 1.25)]
    assert names(extract_pairs(tree, num_per_side=1)[:1]) == [("b", "e", 1.75)]
    assert len(extract_pairs(tree, num_per_side=1)) == 2


def test_a_step_that_leads_to_both_may_be_negative_but_never_on_both_sides(tree):
    for name, q in zip("abc", (0.75, 0.5, 0.25), strict=True):
        add_step(tree, name, q, right=1, wrong=1)
    assert names(step_pairs(tree)) == [("a", "c", 0.5), ("b", "c", 0.25)]


def test_a_margin_that_is_not_positive_makes_no_pair(tree):
    add_step(tree, "a", 0.5, right=1)
    add_step(tree, "b", -0.5, right=1)
    add_step(tree, "c", -0.5, wrong=1)
    add_step(tree, "d", 0.0, wrong=1)
    assert names(step_pairs(tree)) == [("a", "c", 1.0), ("a", "d", 0.5)]


def test_a_step_without_evidence_is_on_neither_side(tree):
    add_step(tree, "a", 0.5, right=1)
    add_step(tree, "b", -0.9)
    assert step_pairs(tree) == []


def test_terminals_are_not_steps_to_compare(tree):
    add_step(tree, "a", 0.0, right=1, wrong=1)
    assert step_pairs(tree) == []


def test_a_pair_names_its_prefix_and_its_nodes(tree):
    above = add_step(tree, "<code>\nx\n<end_of_step>", 0.0)
    good = add_step(tree, "good", 0.5, right=1, parent=above)
    bad = add_step(tree, "bad", -0.5, wrong=1, parent=above)
    (pair,) = step_pairs(tree)
    assert pair.prefix == ("<code>\nx\n<end_of_step>",)
    assert (pair.prefix_id, pair.chosen_id, pair.rejected_id) == (above.id, good.id, bad.id)
    assert (pair.chosen_q, pair.rejected_q) == (0.5, -0.5)


def test_the_best_correct_trajectories_are_paired_with_the_worst_wrong_ones(tree):
    add_step(tree, "a", 0.5, right=1)  # mean Q 0.75
    add_step(tree, "b", 0.0, right=1)  # 0.5
    add_step(tree, "c", 0.25, right=1)  # 0.625
    add_step(tree, "d", -0.5, wrong=1)  # -0.75
    add_step(tree, "e", 0.5, wrong=1)  # -0.25
    add_step(tree, "f", 0.0, wrong=1)  # -0.5
    pairs = trajectory_pairs(tree)
    assert names(pairs) == [("a", "d", 1.5), ("a", "f", 1.25), ("c", "d", 1.375), ("c", "f", 1.125)]
    assert {pair.prefix for pair in pairs} == {()}
    assert len(pairs[0].chosen) == 2


def test_a_problem_with_only_correct_or_only_wrong_answers_gives_no_pairs(tree):
    add_step(tree, "a", 1.0, right=2)
    add_step(tree, "b", 0.5, right=1)
    assert extract_pairs(tree) == []
    other = Tree.start(tree.problem, 0)
    add_step(other, "a", -1.0, wrong=1)
    add_step(other, "b", -0.5, dead_end=True)
    assert extract_pairs(other) == []


def test_a_pair_is_clear_by_its_margin_and_its_edit_distance():
    assert is_clear(0.5, 20)
    assert not is_clear(0.49, 20)
    assert not is_clear(0.5, 19)
    assert is_clear(0.1, 0, min_margin=0.1, min_edit_distance=0)
