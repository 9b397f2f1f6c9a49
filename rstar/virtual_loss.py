"""Virtual loss: what keeps the rollouts that are under way at once in one tree apart.

Not in the paper, whose rollouts follow one another. A rollout under way counts as one more visit, and one lost (-1),
at every node that it has entered; the counts are kept beside the tree, so that no N or q of it is ever touched.
"""

from __future__ import annotations

from collections.abc import Sequence

from rstar.annotation import DEAD_END_VALUE
from rstar.selection import ucb
from rstar.tree import Node


class VirtualLoss:
    """The rollouts under way in one tree: where they count as losses, and where no other can go."""

    def __init__(self) -> None:
        self._losses: dict[int, int] = {}  # by node id
        self._blocked: set[int] = set()  # open nodes below which everything open is being expanded

    def __len__(self) -> int:
        """The number of virtual losses in the whole tree."""
        return sum(self._losses.values())

    def admits(self, node: Node) -> bool:
        """Whether another rollout may enter `node`."""
        return not node.closed and node.id not in self._blocked

    def enter(self, node: Node) -> None:
        self._losses[node.id] = self._losses.get(node.id, 0) + 1

    def take_back(self, path: Sequence[Node]) -> None:
        """Remove the losses of a rollout that entered the nodes of `path` and has ended."""
        for node in path:
            self._losses[node.id] -= 1
            if not self._losses[node.id]:
                del self._losses[node.id]

    def block(self, node: Node) -> None:
        """`node` is being expanded: nobody else may."""
        self._blocked.add(node.id)
        self._pass_up(node.parent)

    def unblock(self, node: Node) -> None:
        """`node` has been expanded, or is a dead end."""
        self._blocked.discard(node.id)
        self._pass_up(node.parent)

    def select(self, node: Node, *, exploration: float) -> Node:
        """The child with the largest UCT, losses counted, of those that admit a rollout; ties as in `select`."""
        parent_visits = node.visits + self._losses.get(node.id, 0)

        def value(child: Node) -> float:
            losses = self._losses.get(child.id, 0)
            value_sum = child.value_sum + losses * DEAD_END_VALUE
            return ucb(child.visits + losses, value_sum, parent_visits, exploration=exploration)

        return max(filter(self.admits, node.children), key=value)

    def _pass_up(self, node: Node | None) -> None:
        while node is not None:
            if not node.closed and not any(map(self.admits, node.children)):
                self._blocked.add(node.id)
            else:
                self._blocked.discard(node.id)
            node = node.parent
