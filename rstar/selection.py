"""Selection: the upper confidence bound for trees, UCT, and the rollouts in flight that it keeps apart.

Section 3.2, equation 1: UCT(s) = Q(s) + c * sqrt(ln N_parent(s) / N(s)). The paper's rollouts follow one another. Where
several are in flight in one tree, each of the others counts as one more visit, and one lost (-1), at every node that it
has entered: a virtual loss. The counts are kept beside the tree, so no N or q of it is touched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rstar.annotation import DEAD_END_VALUE
from rstar.tree import Node


class InFlight:
    """The rollouts that wait for an expansion: where they count as losses, and where no other rollout can go."""

    def __init__(self) -> None:
        self._losses: dict[int, int] = {}  # by node id
        self._blocked: set[int] = set()  # open nodes below which everything open is being expanded

    def losses(self, node: Node) -> int:
        """The number of rollouts in flight that have entered `node`."""
        return self._losses.get(node.id, 0)

    def admits(self, node: Node) -> bool:
        """Whether another rollout may enter `node`."""
        return not node.closed and node.id not in self._blocked

    def start(self, path: Sequence[Node]) -> None:
        """A rollout has entered the nodes of `path`, and the last of them is being expanded: nobody else may."""
        for node in path:
            self._losses[node.id] = self._losses.get(node.id, 0) + 1
        self._blocked.add(path[-1].id)
        self._pass_up(path[-1].parent)

    def end(self, path: Sequence[Node]) -> None:
        """The last node of `path` has been expanded, or is a dead end."""
        for node in path:
            self._losses[node.id] -= 1
            if not self._losses[node.id]:
                del self._losses[node.id]
        self._blocked.discard(path[-1].id)
        self._pass_up(path[-1].parent)

    def _pass_up(self, node: Node | None) -> None:
        """Block a node while no child of it admits a rollout, and so on upwards."""
        while node is not None:
            if not node.closed and not any(map(self.admits, node.children)):
                self._blocked.add(node.id)
            elif node.id in self._blocked:
                self._blocked.discard(node.id)
            else:
                return
            node = node.parent


def uct(visits: int, value_sum: float, num_parent_visits: int, *, exploration: float) -> float:
    """Return the bound; infinite before the first visit (the reference gives an unvisited child no exploration)."""
    if visits == 0:
        return math.inf
    return value_sum / visits + exploration * math.sqrt(math.log(max(1, num_parent_visits)) / visits)


def select(node: Node, in_flight: InFlight, *, exploration: float) -> Node:
    """Return the child with the largest UCT of those that admit a rollout; of equals the one sampled first."""
    parent_visits = node.visits + in_flight.losses(node)

    def bound(child: Node) -> float:
        losses = in_flight.losses(child)
        value_sum = child.value_sum + losses * DEAD_END_VALUE
        return uct(child.visits + losses, value_sum, parent_visits, exploration=exploration)

    return max(filter(in_flight.admits, node.children), key=bound)
