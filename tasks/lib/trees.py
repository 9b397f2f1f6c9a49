"""Trees as rows of the store's node table, and back.

One row a node, invalid candidates included; only the live checkpoints stay behind (Section 3.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rstar.merging import identity, merge_trees
from rstar.protocols import Problem, StepFormat
from rstar.tree import TIMES, Tree
from store import shards
from store.layout import Run
from store.schema import NODES, node_ref

ROOT, MALFORMED = "root", "malformed"  # kinds of nodes that are no steps


def node_rows(trees: Sequence[Tree], **columns: Any) -> list[dict[str, Any]]:
    """Return the rows of one problem's trees; `columns` are those that are the same for all: run, round, model …"""
    rows = []
    for number, tree in enumerate(trees):
        for node, record in zip(tree.nodes, tree.to_records(), strict=True):
            record |= {"problem_id": tree.problem.id, "tree": number, **columns}
            record |= {name: getattr(node, name) for name in TIMES}
            record["kind"] = record["kind"] or (ROOT if record["parent"] is None else MALFORMED)
            rows.append({name: record[name] for name in NODES.names})
    return rows


def trees_of(
    rows: Iterable[Mapping[str, Any]], problems: Mapping[str, Problem], steps: StepFormat
) -> dict[str, list[Tree]]:
    """Return each problem's trees out of node rows, which are sorted by problem and tree as the store writes them."""
    trees: dict[str, list[Tree]] = {}
    for (problem_id, _), group in groupby(rows, key=lambda row: (row["problem_id"], row["tree"])):
        tree = Tree.from_records(problems[problem_id], map(_read, group), steps)
        trees.setdefault(problem_id, []).append(tree)
    return trees


def node_refs(trees: Sequence[Tree], merged: Tree, steps: StepFormat) -> dict[int, str]:
    """Name each node of a merged tree by the first tree that holds it: merged id -> TREE:ID."""
    names: dict[tuple[object, ...], str] = {}
    for number, tree in enumerate(trees):
        for node, key in zip(tree.nodes, _keys(tree, steps), strict=True):
            names.setdefault(key, node_ref(number, node.id))
    return {node.id: names[key] for node, key in zip(merged.nodes, _keys(merged, steps), strict=True)}


def _read(row: Mapping[str, Any]) -> dict[str, Any]:
    return dict(row) | {"kind": None if row["kind"] in (ROOT, MALFORMED) else row["kind"]}


def _keys(tree: Tree, steps: StepFormat) -> list[tuple[object, ...]]:
    """One key a node: equal where the steps from the root are."""
    numbers: dict[tuple[object, ...], tuple[object, ...]] = {}
    keys: list[tuple[object, ...]] = []
    for node in tree.nodes:
        parent = () if node.parent is None else keys[node.parent.id]
        key = (parent, identity(node, steps))
        keys.append(numbers.setdefault(key, key))
    return keys


@dataclass(frozen=True, slots=True)
class Searched:
    """All that a round's search found out about one problem: its trees as one, and the names of the nodes."""

    problem: Problem
    tree: Tree
    refs: dict[int, str]


def searched(run: Run, round: int, problems: Mapping[str, Problem], steps: StepFormat) -> Iterator[Searched]:
    """Read the trees of a round, a shard at a time, and merge those of one problem (Section 3.2, Q-values)."""
    for url in run.shards(round):
        for problem_id, trees in trees_of(shards.read_rows(url, "nodes"), problems, steps).items():
            merged = trees[0] if len(trees) == 1 else merge_trees(trees, steps)
            yield Searched(problems[problem_id], merged, node_refs(trees, merged, steps))


def tree_seed(seed: int, problem_id: str, number: int) -> int:
    """Seed a tree by its problem, so that it does not depend on its shard."""
    digest = hashlib.blake2b(f"{seed}-{problem_id}-{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
