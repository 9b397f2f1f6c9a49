"""Check golden worlds against the search: python tests/golden/run.py FILE; exits 1 at the first difference.

A world scripts the policy, the verdicts, the answers and the PPM's scores; its steps are letters. Everything else
is the search that the flows run. `Letters` sets one rule of the step format aside: in a world an answer may follow any
step.
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
from rstar.inference.thinking import grade
from rstar.pairs import step_pairs, trajectory_pairs
from rstar.protocols import Execution, Problem, Proposal, Step, Verdict
from rstar.search import SearchSettings, search
from rstar.trajectories import Trajectory, sft_choice, trajectories
from rstar.tree import Node, Tree

World = Mapping[str, Any]


class Letters(Mathematics):
    """Reads a step as the real format does, but lets an answer follow any step, the question too."""

    @staticmethod
    def read(text: str, prefix: Sequence[str]) -> Step:  # type: ignore[override]
        return read_step(text, [END_OF_CODE] if kind_of(text) is StepKind.ANSWER else prefix)


LETTERS = Letters()


def letter_of(text: str) -> str:
    """The letter (or any other name) is the first comment, or stands first in the answer."""
    match = re.search(r"(?:# |<answer> )([^\n:]*)", text)
    assert match is not None, text
    return match[1]


def path_of(steps: Sequence[str]) -> str:
    return "/".join(map(letter_of, steps))


class ScriptedPolicy:
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
    """A checkpoint is the path that led to it."""

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
    def __init__(self, world: World) -> None:
        self.ppm = world["ppm"]

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        return [self.ppm[path_of([*prefix, candidate])] for candidate in candidates]


class ExactJudge:
    async def equivalent(self, answer: str, other: str) -> bool:
        return answer == other

    correct = equivalent


async def search_world(world: World) -> Tree:
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
    await grade(tree, judge=ExactJudge())
    return tree


def outcome(tree: Tree) -> dict[str, Any]:
    """What a world's `expected` holds, of a tree."""
    found = trajectories(tree)
    ends = sorted((node for node in tree.nodes if node.ended is not None), key=lambda node: node.ended)
    return {
        "rollout_ends": [path(node) for node in ends],
        "nodes": [node_outcome(node) for node in tree.walk()],
        "trajectories": [trajectory_outcome(one) for one in found],
        "sft": [letters(one.steps) for one in sft_choice(found)],
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
    return [letter_of(step) for step in steps]


def path(node: Node) -> list[str]:
    return letters(node.prefix())


def node_outcome(node: Node) -> dict[str, Any]:
    return {
        "path": path(node),
        "visits": node.visits,
        "value_sum": node.value_sum,
        "samples": node.num_samples,
        "closed": node.closed,
    }


def trajectory_outcome(one: Trajectory) -> dict[str, Any]:
    return {
        "path": letters(one.steps),
        "answer": one.answer,
        "correct": one.correct,
        "mean_q": one.mean_q,
        "min_q": one.min_q,
    }


def differences(expected: Any, got: Any, where: str = "") -> Iterator[str]:
    """Every place where `got` is not `expected`, to the last digit."""
    if isinstance(expected, dict) and isinstance(got, dict):
        for key in expected:
            yield from differences(expected[key], got.get(key), f"{where}.{key}".lstrip("."))
    elif isinstance(expected, list) and isinstance(got, list):
        for at, (one, other) in enumerate(zip(expected, got, strict=False)):
            yield from differences(one, other, f"{where}[{at}]")
        if len(expected) != len(got):
            yield f"{where}: expected {len(expected)} entries, got {len(got)}"
    elif expected != got:
        yield f"{where}: expected {expected!r}, got {got!r}"


def check(world: World) -> str | None:
    """The first difference between a world's expectations and the search; None where there is none."""
    return next(differences(world["expected"], outcome(asyncio.run(search_world(world)))), None)


def main(arguments: Sequence[str]) -> int:
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
