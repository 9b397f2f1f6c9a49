"""Check the search against golden worlds: python tests/golden/run.py FILE. Exits 1 at the first difference.

A world scripts the policy, the verdicts, the answers and the PPM's scores; its steps are letters. Everything else is
the search that the flows run, with one exception: `Letters` lets an answer follow any step.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from domains.mathematics.domain import Mathematics
from domains.mathematics.steps import END_OF_CODE, StepKind, kind_of, read_step
from rstar.annotation import Annotation
from rstar.pairs import step_pairs, trajectory_pairs
from rstar.protocols import Execution, Problem, Proposal, Step, Verdict
from rstar.search import SearchSettings, search
from rstar.trajectories import Trajectory, sft_choice, trajectories
from rstar.tree import Node, Tree

World = Mapping[str, Any]


class Letters(Mathematics):
    """The step format of mathematics, except that an answer may follow any step, or the question itself."""

    @staticmethod
    def read(text: str, prefix: Sequence[str]) -> Step:  # type: ignore[override]
        return read_step(text, [END_OF_CODE] if kind_of(text) is StepKind.ANSWER else prefix)


LETTERS = Letters()


def letter_of(text: str) -> str:
    """Return the letter, or name, of a step: its first comment, or the first words of its answer."""
    match = re.search(r"(?:# |<answer> )([^\n:]*)", text)
    assert match is not None, text
    return match[1]


def path_of(steps: Sequence[str]) -> str:
    """Return the letters of a prefix, such as "a/b"."""
    return "/".join(map(letter_of, steps))


class ScriptedPolicy:
    """Proposes the letters that the world lists below a path."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        path = path_of(prefix)
        return [
            Proposal(self.step(letter, f"{path}/{letter}".lstrip("/"), first=not prefix))
            for letter in self.world["policy"].get(path, [])
        ]

    def step(self, letter: str, path: str, *, first: bool) -> str:
        answer = self.world["answers"].get(path)
        if answer is not None and path not in self.world["invalid"]:
            return f"\n<answer> {letter}: \\boxed{{{answer}}}\n<end_of_answer>"
        return f"{'<code>' if first else ''}\n# {letter}\npass\n<end_of_step>"


class ScriptedExecutor:
    """Fails on the invalid paths of the world. A checkpoint is the path that led to it."""

    def __init__(self, world: World) -> None:
        self.invalid = set(world["invalid"])

    async def run(self, checkpoint: str | None, code: str) -> Execution:
        path = f"{checkpoint or ''}/{letter_of(code)}".lstrip("/")
        if path in self.invalid:
            return Execution(Verdict.EXCEPTION, error="scripted")
        return Execution(Verdict.OK, checkpoint=path)

    async def release(self, checkpoint: str) -> None:
        pass


class ScriptedScorer:
    """Scores a path as the world says."""

    def __init__(self, world: World) -> None:
        self.ppm = world["ppm"]

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        return [self.ppm[path_of([*prefix, candidate])] for candidate in candidates]


class ExactJudge:
    """Answers are the same if their texts are equal."""

    async def equivalent(self, answer: str, other: str) -> bool:
        return answer == other

    correct = equivalent


async def search_world(world: World) -> Tree:
    """Return the tree of a world. Answers that the search did not judge are judged afterwards."""
    settings = {**world["settings"], "annotation": Annotation(world["settings"]["annotation"])}
    tree = await search(
        Problem(world["name"], "?", world["truth"]),
        policy=ScriptedPolicy(world),
        executor=ScriptedExecutor(world),
        judge=ExactJudge(),
        scorer=ScriptedScorer(world),
        settings=SearchSettings(**settings),
        steps=LETTERS,
    )
    for node in tree.walk():
        if node.answer is not None and node.correct is None:
            node.correct = node.answer == world["truth"]
    return tree


def outcome(tree: Tree) -> dict[str, Any]:
    """Return what a world's `expected` holds, computed from a tree."""
    found = trajectories(tree)
    ends = sorted((node for node in tree.nodes if node.ended is not None), key=lambda node: node.ended)
    return {
        "rollout_ends": [path(node) for node in ends],
        "nodes": [node_outcome(node) for node in tree.walk()],
        "trajectories": [trajectory_outcome(trajectory) for trajectory in found],
        "sft": [letters(trajectory.steps) for trajectory in sft_choice(found)],
        "step_pairs": [
            {
                "prefix": letters(pair.prefix),
                "chosen": letter_of(pair.chosen[0]),
                "rejected": letter_of(pair.rejected[0]),
                "margin": pair.margin,
            }
            for pair in step_pairs(tree)
        ],
        "trajectory_pairs": [
            {"chosen": letters(pair.chosen), "rejected": letters(pair.rejected)} for pair in trajectory_pairs(tree)
        ],
    }


def letters(steps: Sequence[str]) -> list[str]:
    """Return the letters of steps."""
    return [letter_of(step) for step in steps]


def path(node: Node) -> list[str]:
    """Return the letters from the root to a node."""
    return letters(node.prefix())


def node_outcome(node: Node) -> dict[str, Any]:
    """Return the expected fields of a node."""
    return {
        "path": path(node),
        "visits": node.visits,
        "value_sum": node.value_sum,
        "samples": node.num_samples,
        "closed": node.closed,
    }


def trajectory_outcome(trajectory: Trajectory) -> dict[str, Any]:
    """Return the expected fields of a trajectory."""
    return {
        "path": letters(trajectory.steps),
        "answer": trajectory.answer,
        "correct": trajectory.correct,
        "mean_q": trajectory.mean_q,
        "min_q": trajectory.min_q,
    }


def differences(expected: Any, got: Any, where: str = "") -> Iterator[str]:
    """Yield every place where `got` differs from `expected`, to the last digit."""
    if isinstance(expected, dict) and isinstance(got, dict):
        for key in expected:
            yield from differences(expected[key], got.get(key), f"{where}.{key}".lstrip("."))
    elif isinstance(expected, list) and isinstance(got, list):
        for index, (left, right) in enumerate(zip(expected, got, strict=False)):
            yield from differences(left, right, f"{where}[{index}]")
        if len(expected) != len(got):
            yield f"{where}: expected {len(expected)} entries, got {len(got)}"
    elif expected != got:
        yield f"{where}: expected {expected!r}, got {got!r}"


def check(world: World) -> str | None:
    """Return the first difference between what a world expects and the search; None if there is none."""
    return next(differences(world["expected"], outcome(asyncio.run(search_world(world)))), None)


def main(arguments: Sequence[str]) -> int:
    """Check the worlds of a file; return the exit code."""
    if len(arguments) != 1:
        print("usage: python tests/golden/run.py FILE", file=sys.stderr)
        return 2
    worlds = json.loads(Path(arguments[0]).read_text())
    for world in worlds:
        if difference := check(world):
            print(f"{world['name']}: {difference}", file=sys.stderr)
            return 1
    print(f"{len(worlds)} worlds match")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
