"""The search tree: its nodes with visits and value sums, and its form as plain rows.

Section 3.2. A node is one step. Its prefix is the list of rendered steps from the question to the node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rstar.protocols import Problem, StepFormat, Verdict


@dataclass(slots=True, eq=False)
class Node:
    """A sampled step and its results. Invalid candidates are nodes too, but not in their parent's `children`."""

    id: int  # in order of creation; the root is 0
    parent: Node | None
    depth: int
    index: int  # position of its first sample in the expansion
    text: str = ""  # as the policy generated it
    output: str = ""
    rendered: str = ""  # as later prompts show it: with its output, if the step format shows that
    kind: str | None = None  # named by the step format
    verdict: Verdict = Verdict.OK
    error: str = ""
    answer: str | None = None  # of a terminal; None for any other node
    correct: bool | None = None  # None if not judged or undecided
    visits: int = 0
    value_sum: float = 0.0
    ppm_score: float | None = None
    num_samples: int = 1  # merged into this node
    closed: bool = False
    dead_end: bool = False
    expanded: bool = False
    num_tokens: int = 0  # of `text`
    sampled_tokens: int = 0  # of all merged samples
    prompt_tokens: int = 0
    cached_tokens: int = 0
    logprob: float = 0.0
    rollout: int = -1  # the rollout that created the node
    ended: int | None = None  # the last rollout that ended here
    seconds: float = 0.0  # of its code
    policy_seconds: float = 0.0  # this and the next two: of the expansion below this node, including waiting
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
        """Whether the node holds a final answer."""
        return self.answer is not None

    @property
    def valid(self) -> bool:
        """Whether the step is well-formed and its code ran."""
        return self.verdict is Verdict.OK

    def path(self) -> list[Node]:
        """Return the nodes from the first step to this one; none for the root."""
        nodes, node = [], self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def prefix(self) -> list[str]:
        """Return the rendered steps from the first one to this one."""
        return [node.rendered for node in self.path()]

    def walk(self) -> Iterator[Node]:
        """Yield this node and all valid nodes below it, parents first, siblings in sampling order."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))


TIMING_FIELDS = ("cached_tokens", "policy_seconds", "sandbox_seconds", "scorer_seconds")  # differ between equal runs
_NOT_STORED = ("parent", "rendered", "verdict", "checkpoint", "children", *TIMING_FIELDS)
_STORED = tuple(name for name in Node.__slots__ if name not in _NOT_STORED)


@dataclass(slots=True, eq=False)
class Tree:
    """A problem's tree. `nodes` holds every node by id, invalid ones included."""

    problem: Problem
    seed: int
    nodes: list[Node]

    @classmethod
    def start(cls, problem: Problem, seed: int) -> Tree:
        """Return a tree that has only a root."""
        return cls(problem, seed, [Node(0, None, depth=0, index=0)])

    @property
    def root(self) -> Node:
        """The node of the question, before any step."""
        return self.nodes[0]

    @property
    def num_rollouts(self) -> int:
        """Rollouts that have ended."""
        return 1 + max((node.ended for node in self.nodes if node.ended is not None), default=-1)

    @property
    def num_tokens(self) -> int:
        """Tokens that the policy generated for this tree, merged samples included."""
        return sum(node.sampled_tokens for node in self.nodes)

    def add(self, parent: Node, **fields: Any) -> Node:
        """Add a node below `parent` and return it. A valid node becomes a child of `parent`."""
        node = Node(len(self.nodes), parent, parent.depth + 1, **fields)
        node.rendered = node.rendered or node.text
        self.nodes.append(node)
        if node.valid:
            parent.children.append(node)
        return node

    def walk(self) -> Iterator[Node]:
        """Yield all valid nodes, parents first, siblings in sampling order."""
        return self.root.walk()

    def to_records(self) -> list[dict[str, Any]]:
        """Return one row for each node, by id, without checkpoints and timings."""
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
        """Return the tree that `to_records` wrote. Rows may be in any order and have more columns."""
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
    """Close `node` if all its children are closed, then its parent likewise, and so on."""
    while node is not None and node.children and all(child.closed for child in node.children):
        node.closed = True
        node = node.parent
