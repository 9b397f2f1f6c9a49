"""UCT, computed by hand."""

import math

import pytest

from rstar.protocols import Problem
from rstar.selection import InFlight, select, uct
from rstar.tree import Tree


@pytest.fixture
def root():
    """A root with N = 10 and children with (N, q) = (4, 2) and (6, 3), both with Q = 0.5."""
    tree = Tree.start(Problem("p", "?", "1"), 0)
    tree.root.visits = 10
    tree.add(tree.root, index=0, visits=4, value_sum=2.0)
    tree.add(tree.root, index=1, visits=6, value_sum=3.0)
    return tree.root


def test_uct_is_q_plus_c_times_the_root_of_log_parent_over_own_visits(root):
    assert uct(4, 2.0, 10, exploration=2.0) == 0.5 + 2.0 * math.sqrt(math.log(10) / 4)
    assert uct(4, 2.0, 10, exploration=0.0) == 0.5


def test_a_parent_without_visits_gives_no_exploration_term(root):
    assert uct(4, 2.0, 0, exploration=2.0) == 0.5


def test_a_child_without_visits_is_entered_first(root):
    root.children[1].visits, root.children[1].value_sum = 0, 0.0
    assert uct(0, 0.0, 10, exploration=2.0) == math.inf
    assert select(root, InFlight(), exploration=2.0) is root.children[1]


def test_of_equal_q_the_less_visited_child_is_entered(root):
    assert select(root, InFlight(), exploration=2.0) is root.children[0]


def test_of_equal_bounds_the_child_sampled_first_is_entered(root):
    assert select(root, InFlight(), exploration=0.0) is root.children[0]


def test_a_closed_child_is_not_entered(root):
    root.children[0].closed = True
    assert select(root, InFlight(), exploration=2.0) is root.children[1]
