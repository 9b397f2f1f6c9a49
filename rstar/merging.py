"""Merging: several trees of one problem become one, for Q-values.

Section 3.2 (Q-values). Nodes with the same prefix are one node, and their visits and value sums add up. A problem has
several trees if it was searched again with another seed.
"""

from __future__ import annotations

from collections.abc import Sequence

from rstar.protocols import StepFormat
from rstar.tree import Node, Tree


def merge_trees(trees: Sequence[Tree], steps: StepFormat) -> Tree:
    """Return a new tree; the given trees, all of one problem, do not change.

    Nodes keep the order in which they joined, those of the first tree before those of the second. The first tree's text
    of a node stays.
    """
    problems = {tree.problem.id for tree in trees}
    if len(problems) != 1:
        raise ValueError(f"only trees of one problem can be merged, got trees of {sorted(problems)}")
    merged = Tree.start(trees[0].problem, trees[0].seed)
    siblings: dict[tuple[int, str], Node] = {}  # merged node by (merged parent's id, identity)
    last_index: dict[int, int] = {}  # by merged parent's id: samples of a later tree come after those of an earlier one
    for tree in trees:
        num_rollouts = merged.num_rollouts
        targets = {0: merged.root}  # merged node by id in this tree
        _accumulate(merged.root, tree.root, num_rollouts)
        merged.root.num_samples = 1
        for node in tree.nodes[1:]:
            assert node.parent is not None
            parent = targets[node.parent.id]
            key = (parent.id, identity(node, steps))
            target = siblings.get(key)
            if target is None:
                index = last_index[parent.id] = max(node.index, 1 + last_index.get(parent.id, -1))
                target = siblings[key] = _copy(merged, parent, node, index, num_rollouts)
            else:
                _accumulate(target, node, num_rollouts)
            targets[node.id] = target
    for node in reversed(merged.nodes):  # children before parents
        node.closed = all(child.closed for child in node.children) if node.children else node.closed
    return merged


def identity(node: Node, steps: StepFormat) -> str:
    """Return a key that is equal for siblings that are one node when trees are merged.

    Terminals are compared by answer, other nodes by validity and normalised text.
    """
    if node.terminal:
        return f"answer {node.answer}"
    return f"text {node.valid} {steps.normalized(node.text)}"


def _copy(merged: Tree, parent: Node, node: Node, index: int, num_rollouts: int) -> Node:
    names = (name for name in Node.__slots__ if name not in ("id", "parent", "depth", "checkpoint", "children"))
    fields = {name: getattr(node, name) for name in names}
    fields["index"] = index
    fields["rollout"] += num_rollouts
    if node.ended is not None:
        fields["ended"] += num_rollouts
    return merged.add(parent, **fields)


def _accumulate(target: Node, node: Node, num_rollouts: int) -> None:
    target.visits += node.visits
    target.value_sum += node.value_sum
    target.num_samples += node.num_samples
    target.sampled_tokens += node.sampled_tokens
    target.expanded |= node.expanded
    target.dead_end |= node.dead_end  # a dead end in any tree is evidence of failure
    target.closed |= node.closed
    target.correct = node.correct if target.correct is None else target.correct  # a decided verdict holds
    target.ppm_score = node.ppm_score if target.ppm_score is None else target.ppm_score
    if node.ended is not None:
        target.ended = node.ended + num_rollouts
