"""The search tree: nodes, visits and value sums; its rows; and several trees of one problem as one.

Section 3.2. A node is one step; its prefix is the path of rendered steps from the question to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rstar.protocols import Problem, StepFormat, Verdict


@dataclass(slots=True, eq=False)
class Node:
    """A step that was sampled, with what became of it. Invalid candidates are nodes too, but nobody's children."""

    id: int  # in order of creation
    parent: Node | None
    depth: int
    index: int  # of its first sample among the samples of its expansion
    text: str = ""  # as the policy wrote it
    output: str = ""
    rendered: str = ""  # as later prompts show it: with what its code printed, where the step format shows that
    kind: str | None = None  # the step format's own name
    verdict: Verdict = Verdict.OK
    error: str = ""
    answer: str | None = None  # set on terminals only
    correct: bool | None = None  # None: unknown
    visits: int = 0
    value_sum: float = 0.0
    ppm_score: float | None = None
    num_samples: int = 1  # equal samples merged into this node
    closed: bool = False
    dead_end: bool = False
    expanded: bool = False
    num_tokens: int = 0  # of this text
    sampled_tokens: int = 0  # of all samples merged into this node
    prompt_tokens: int = 0
    cached_tokens: int = 0
    logprob: float = 0.0
    rollout: int = -1  # that created it
    ended: int | None = None  # the (last) rollout that ended here
    seconds: float = 0.0
    policy_seconds: float = 0.0  # of the expansion of this node, waiting included, as the next two
    sandbox_seconds: float = 0.0
    scorer_seconds: float = 0.0
    checkpoint: str | None = None
    children: list[Node] = field(default_factory=list, repr=False)

    @property
    def q(self) -> float:
        """Q = q / N; 0 before the first visit."""
        return self.value_sum / self.visits if self.visits else 0.0

    @property
    def terminal(self) -> bool:
        return self.answer is not None

    @property
    def valid(self) -> bool:
        return self.verdict is Verdict.OK

    def path(self) -> list[Node]:
        """The nodes from the first step to this one; empty at the root."""
        nodes, node = [], self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def prefix(self) -> list[str]:
        return [node.rendered for node in self.path()]

    def walk(self) -> Iterator[Node]:
        """This node and all valid ones below it, parents first, siblings in sampling order."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))


TIMES = ("cached_tokens", "policy_seconds", "sandbox_seconds", "scorer_seconds")  # how it went, not what came out
_LEFT_OUT = ("parent", "rendered", "verdict", "checkpoint", "children", *TIMES)
_STORED = tuple(name for name in Node.__slots__ if name not in _LEFT_OUT)


@dataclass(slots=True, eq=False)
class Tree:
    """A problem's tree. `nodes` holds every node by id, the root first, invalid ones included."""

    problem: Problem
    seed: int
    nodes: list[Node]

    @classmethod
    def start(cls, problem: Problem, seed: int) -> Tree:
        return cls(problem, seed, [Node(0, None, depth=0, index=0)])

    @property
    def root(self) -> Node:
        return self.nodes[0]

    @property
    def num_rollouts(self) -> int:
        return 1 + max((node.ended for node in self.nodes if node.ended is not None), default=-1)

    @property
    def num_tokens(self) -> int:
        """All tokens that the policy generated for this tree."""
        return sum(node.sampled_tokens for node in self.nodes)

    def add(self, parent: Node, **fields: Any) -> Node:
        """A new node below `parent`, its child where it is valid."""
        node = Node(len(self.nodes), parent, parent.depth + 1, **fields)
        node.rendered = node.rendered or node.text
        self.nodes.append(node)
        if node.valid:
            parent.children.append(node)
        return node

    def walk(self) -> Iterator[Node]:
        return self.root.walk()

    def to_records(self) -> list[dict[str, Any]]:
        """One plain row a node, by id; everything but the live checkpoint and the times."""
        return [
            {
                "seed": self.seed,
                "parent": None if node.parent is None else node.parent.id,
                "verdict": node.verdict.value,
                "terminal": node.terminal,
                "q": node.q,
                **{name: getattr(node, name) for name in _STORED},
            }
            for node in self.nodes
        ]

    @classmethod
    def from_records(cls, problem: Problem, records: Iterable[Mapping[str, Any]], steps: StepFormat) -> Tree:
        """The tree that `to_records` wrote; rows may come in any order and with further columns."""
        rows = sorted(records, key=lambda row: int(row["id"]))
        nodes: list[Node] = []
        for row in rows:
            parent = None if row["parent"] is None else nodes[row["parent"]]
            stored = {name: row[name] for name in _STORED}
            node = Node(parent=parent, verdict=Verdict(row["verdict"]), **stored)
            node.rendered = steps.render(node.text, node.output) if node.valid else node.text
            nodes.append(node)
            if parent is not None and node.valid:
                parent.children.append(node)
        return cls(problem, int(rows[0]["seed"]), nodes)


def close_upwards(node: Node | None) -> None:
    """Close a node all of whose children are closed, and so on upwards."""
    while node is not None and node.children and all(child.closed for child in node.children):
        node.closed = True
        node = node.parent
