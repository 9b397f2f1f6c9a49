"""Trees as rows of the node table, one row for each node, and trees read back from rows.

Section 3.2. Invalid candidates are rows too. Sandbox checkpoints are not stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rstar.merging import identity, merge_trees
from rstar.protocols import Problem, StepFormat
from rstar.tree import TIMING_FIELDS, Tree
from store import shards
from store.layout import Run
from store.schema import NODES, node_ref

ROOT, MALFORMED = "root", "malformed"  # kinds of nodes that are not steps


def node_rows(trees: Sequence[Tree], **columns: Any) -> list[dict[str, Any]]:
    """Return the rows of one problem's trees. `columns` are those with the same value in all rows, such as the run."""
    rows = []
    for number, tree in enumerate(trees):
        for node, record in zip(tree.nodes, tree.to_records(), strict=True):
            record |= {"problem_id": tree.problem.id, "tree": number, **columns}
            record |= {name: getattr(node, name) for name in TIMING_FIELDS}
            record["kind"] = record["kind"] or (ROOT if record["parent"] is None else MALFORMED)
            rows.append({name: record[name] for name in NODES.names})
    return rows


def trees_of(
    rows: Iterable[Mapping[str, Any]], problems: Mapping[str, Problem], steps: StepFormat
) -> dict[str, list[Tree]]:
    """Return the trees of each problem. `rows` must be sorted by problem and tree, as the store writes them."""
    trees: dict[str, list[Tree]] = {}
    for (problem_id, _), group in groupby(rows, key=lambda row: (row["problem_id"], row["tree"])):
        tree = Tree.from_records(problems[problem_id], map(_read, group), steps)
        trees.setdefault(problem_id, []).append(tree)
    return trees


def node_refs(trees: Sequence[Tree], merged: Tree, steps: StepFormat) -> dict[int, str]:
    """Return a reference TREE:ID for each node of a merged tree, by its id: its place in the first tree that has it."""
    refs: dict[tuple[object, ...], str] = {}
    for number, tree in enumerate(trees):
        for node, key in zip(tree.nodes, _keys(tree, steps), strict=True):
            refs.setdefault(key, node_ref(number, node.id))
    return {node.id: refs[key] for node, key in zip(merged.nodes, _keys(merged, steps), strict=True)}


def _read(row: Mapping[str, Any]) -> dict[str, Any]:
    return dict(row) | {"kind": None if row["kind"] in (ROOT, MALFORMED) else row["kind"]}


def _keys(tree: Tree, steps: StepFormat) -> list[tuple[object, ...]]:
    """Return a key for each node, which is equal for nodes with the same steps from the root."""
    seen: dict[tuple[object, ...], tuple[object, ...]] = {}
    keys: list[tuple[object, ...]] = []
    for node in tree.nodes:
        parent = () if node.parent is None else keys[node.parent.id]
        key = (parent, identity(node, steps))
        keys.append(seen.setdefault(key, key))
    return keys


@dataclass(frozen=True, slots=True)
class SearchedProblem:
    """A problem with the trees of a round, merged into one."""

    problem: Problem
    tree: Tree
    refs: dict[int, str]  # TREE:ID of each node, by its id in the merged tree


def searched_problems(
    run: Run, round: int, problems: Mapping[str, Problem], steps: StepFormat
) -> Iterator[SearchedProblem]:
    """Read the trees of a round, shard by shard, and merge those of one problem (Section 3.2, Q-values)."""
    for url in run.shards(round):
        for problem_id, trees in trees_of(shards.read_rows(url, "nodes"), problems, steps).items():
            merged = trees[0] if len(trees) == 1 else merge_trees(trees, steps)
            yield SearchedProblem(problems[problem_id], merged, node_refs(trees, merged, steps))


def tree_seed(seed: int, problem_id: str, number: int) -> int:
    """Return the seed of a problem's tree `number`. It depends on the problem and not on its shard."""
    digest = hashlib.blake2b(f"{seed}-{problem_id}-{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
