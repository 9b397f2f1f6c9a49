"""Preference pairs, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rstar.pairs import PairKind, differs, extract_pairs, filter_pairs, group_sizes, step_pairs, trajectory_pairs
from rstar.protocols import Problem
from rstar.steps import StepKind
from rstar.tree import Tree


@pytest.fixture
def tree():
    return Tree.start(Problem("p", "?", "42"), 0)


def grow(tree, name, q, *, right=0, wrong=0, dead_end=False, parent=None):
    """A step with value q below which there are so many right and wrong answers."""
    parent = parent or tree.root
    fields = {"index": len(parent.children), "text": name, "kind": StepKind.CODE}
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
    assert {(pair.num_positives, pair.num_negatives) for pair in step_pairs(tree)} == {(2, 2)}


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


def test_filters_ask_for_a_margin_and_an_edit_distance(tree):
    grow(tree, "a" * 30, 0.5, right=1)
    grow(tree, "a" * 29 + "b", -1.0, wrong=1)
    grow(tree, "c" * 30, 0.25, wrong=1)
    assert [pair.margin for pair in step_pairs(tree)] == [1.5, 0.25]
    assert [pair.margin for pair in filter_pairs(step_pairs(tree), min_margin=0.5, min_edit_distance=0)] == [1.5]
    assert [pair.margin for pair in filter_pairs(step_pairs(tree), min_margin=0.0, min_edit_distance=20)] == [0.25]
    assert filter_pairs(step_pairs(tree)) == []


def test_group_sizes_count_what_a_filter_left(tree):
    for name, q in zip("ab", (0.75, 0.25), strict=True):
        grow(tree, name, q, right=1)
    for name, q in zip("cd", (0.0, -0.5), strict=True):
        grow(tree, name, q, wrong=1)
    kept = filter_pairs(extract_pairs(tree), min_margin=0.5, min_edit_distance=0)
    assert group_sizes(kept) == {(PairKind.STEP, 0): 3, (PairKind.TRAJECTORY, 0): 4}


def levenshtein(text, other):
    row = list(range(len(other) + 1))
    for i, one in enumerate(text, start=1):
        above, row = row, [i]
        for j, two in enumerate(other, start=1):
            row.append(min(above[j - 1] + (one != two), above[j] + 1, row[-1] + 1))
    return row[-1]


@given(st.text("ab", max_size=12), st.text("ab", max_size=12), st.integers(0, 14))
def test_the_banded_edit_distance_agrees_with_the_plain_one(text, other, distance):
    assert differs(text, other, distance) == (levenshtein(text, other) >= distance)
