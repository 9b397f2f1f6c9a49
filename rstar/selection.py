"""Selection: the upper confidence bound for trees, UCT.

Section 3.2, equation 1: UCT(s) = Q(s) + c * sqrt(ln N_parent(s) / N(s)).
"""

from __future__ import annotations

import math

from rstar.tree import Node


def ucb(visits: int, value_sum: float, num_parent_visits: int, *, exploration: float) -> float:
    """Infinite before the first visit: the reference gives an unvisited child no exploration at all."""
    if visits == 0:
        return math.inf
    return value_sum / visits + exploration * math.sqrt(math.log(max(1, num_parent_visits)) / visits)


def uct(child: Node, num_parent_visits: int, *, exploration: float) -> float:
    return ucb(child.visits, child.value_sum, num_parent_visits, exploration=exploration)


def select(node: Node, *, exploration: float) -> Node:
    """The open child with the largest UCT; of equals the one sampled first."""
    open_children = (child for child in node.children if not child.closed)
    return max(open_children, key=lambda child: uct(child, node.visits, exploration=exploration))
