"""Selection: the upper confidence bound for trees, UCT.

Section 3.2, equation 1: UCT(s) = Q(s) + c * sqrt(ln N_parent(s) / N(s)).
"""

from __future__ import annotations

import math

from rstar.tree import Node


def uct(child: Node, num_parent_visits: int, *, exploration: float) -> float:
    """Infinite before the first visit: the reference gives an unvisited child no exploration at all."""
    if child.visits == 0:
        return math.inf
    return child.q + exploration * math.sqrt(math.log(max(1, num_parent_visits)) / child.visits)


def select(node: Node, *, exploration: float) -> Node:
    """The open child with the largest UCT; of equals the one sampled first."""
    open_children = (child for child in node.children if not child.closed)
    return max(open_children, key=lambda child: uct(child, node.visits, exploration=exploration))
