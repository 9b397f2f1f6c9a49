"""Selection: the upper confidence bound for trees (UCT), and virtual losses for rollouts in flight.

Section 3.2, equation 1: UCT(s) = Q(s) + c * sqrt(ln N_parent(s) / N(s)). The paper's rollouts are sequential. If
several are in flight in one tree, each counts as one more visit with value -1, a virtual loss, at every node that it
has entered. These counts are kept outside the tree: they never change its N or q.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rstar.annotation import DEAD_END_VALUE
from rstar.tree import Node


class InFlight:
    """The rollouts that wait for an expansion: their virtual losses, and the nodes that they block."""

    def __init__(self) -> None:
        self._losses: dict[int, int] = {}  # by node id
        self._blocked: set[int] = set()  # ids of open nodes below which every open node is being expanded

    def losses(self, node: Node) -> int:
        """Return the number of rollouts in flight that have entered `node`."""
        return self._losses.get(node.id, 0)

    def is_open(self, node: Node) -> bool:
        """Return whether a rollout may enter `node`: it is neither closed nor blocked."""
        return not node.closed and node.id not in self._blocked

    def start(self, path: Sequence[Node]) -> None:
        """Record that a rollout has entered the nodes of `path` and that the last one is being expanded."""
        for node in path:
            self._losses[node.id] = self._losses.get(node.id, 0) + 1
        self._blocked.add(path[-1].id)
        self._update_blocked(path[-1].parent)

    def end(self, path: Sequence[Node]) -> None:
        """Record that the last node of `path` has been expanded or is a dead end."""
        for node in path:
            self._losses[node.id] -= 1
            if not self._losses[node.id]:
                del self._losses[node.id]
        self._blocked.discard(path[-1].id)
        self._update_blocked(path[-1].parent)

    def _update_blocked(self, node: Node | None) -> None:
        """Block a node none of whose children is open, unblock it otherwise, and so on upwards."""
        while node is not None:
            if not node.closed and not any(map(self.is_open, node.children)):
                self._blocked.add(node.id)
            elif node.id in self._blocked:
                self._blocked.discard(node.id)
            else:
                return
            node = node.parent


def uct(visits: int, value_sum: float, num_parent_visits: int, *, exploration: float) -> float:
    """Return the bound; infinite before the first visit.

    The reference code departs from this: there an unvisited child gets no exploration term.
    """
    if visits == 0:
        return math.inf
    return value_sum / visits + exploration * math.sqrt(math.log(max(1, num_parent_visits)) / visits)


def select(node: Node, in_flight: InFlight, *, exploration: float) -> Node:
    """Return the open child with the largest UCT; of equal children the one sampled first."""
    parent_visits = node.visits + in_flight.losses(node)
    best, best_bound = None, -math.inf
    for child in node.children:
        if in_flight.is_open(child):
            losses = in_flight.losses(child)
            value_sum = child.value_sum + losses * DEAD_END_VALUE
            bound = uct(child.visits + losses, value_sum, parent_visits, exploration=exploration)
            if best is None or bound > best_bound:
                best, best_bound = child, bound
            if bound == math.inf:
                break  # no later child is better
    assert best is not None, "no open child"
    return best
