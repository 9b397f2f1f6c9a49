"""Several trees of one problem as one: nodes with the same prefix are one node, visits and value sums add up.

Section 3.2 (Q-values); used where a problem has a second seed. A retried shard's earlier attempt is not such a tree.
"""

from __future__ import annotations

from collections.abc import Sequence

from rstar.protocols import StepFormat
from rstar.tree import Node, Tree


def merge_trees(trees: Sequence[Tree], steps: StepFormat) -> Tree:
    """One new tree out of trees of the same problem, which stay as they are."""
    problems = {tree.problem.id for tree in trees}
    if len(problems) != 1:
        raise ValueError(f"can merge only trees of one problem, got those of {sorted(problems)}")
    merged = Tree.start(trees[0].problem, trees[0].seed)
    siblings: dict[tuple[int, str], Node] = {}  # by (merged parent's id, what makes siblings equal)
    last_index: dict[int, int] = {}  # by merged parent's id: a later tree's samples come after
    for tree in trees:
        num_rollouts = merged.num_rollouts
        twins = {0: merged.root}  # merged node by the tree's own id
        _add(merged.root, tree.root, num_rollouts)
        merged.root.num_samples = 1
        for node in tree.nodes[1:]:
            assert node.parent is not None
            parent = twins[node.parent.id]
            key = (parent.id, identity(node, steps))
            twin = siblings.get(key)
            if twin is None:
                index = last_index[parent.id] = max(node.index, 1 + last_index.get(parent.id, -1))
                twin = siblings[key] = _copy(merged, parent, node, index, num_rollouts)
            else:
                _add(twin, node, num_rollouts)
            twins[node.id] = twin
    for node in reversed(merged.nodes):  # children before parents
        node.closed = all(child.closed for child in node.children) if node.children else node.closed
    return merged


def identity(node: Node, steps: StepFormat) -> str:
    """Siblings with equal identities are one node: answers count for terminals, and validity always."""
    if node.terminal:
        return f"answer {node.answer}"
    return f"text {node.valid} {steps.normalized(node.text)}"


def _copy(merged: Tree, parent: Node, node: Node, index: int, num_rollouts: int) -> Node:
    kept = (name for name in Node.__slots__ if name not in ("id", "parent", "depth", "checkpoint", "children"))
    fields = {name: getattr(node, name) for name in kept}
    fields["index"] = index
    fields["rollout"] += num_rollouts
    if node.ended is not None:
        fields["ended"] += num_rollouts
    return merged.add(parent, **fields)


def _add(twin: Node, node: Node, num_rollouts: int) -> None:
    twin.visits += node.visits
    twin.value_sum += node.value_sum
    twin.num_samples += node.num_samples
    twin.sampled_tokens += node.sampled_tokens
    twin.expanded |= node.expanded
    twin.dead_end |= node.dead_end  # a failure once seen stays evidence, even where the other tree went on
    twin.closed |= node.closed
    twin.correct = node.correct if twin.correct is None else twin.correct
    twin.ppm_score = node.ppm_score if twin.ppm_score is None else twin.ppm_score
    if node.ended is not None:
        twin.ended = node.ended + num_rollouts
