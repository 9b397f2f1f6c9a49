"""Small worlds for the search: steps that are letters, from the golden checker, and real steps run by exec."""

import importlib.util
from pathlib import Path

import pytest

from rstar.protocols import Execution, Problem, Verdict

GOLDEN = Path(__file__).parents[1] / "golden" / "run.py"


@pytest.fixture(scope="session")
def golden():
    spec = importlib.util.spec_from_file_location("golden_run", GOLDEN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def letters(golden):
    """Search a world of letters: `await letters({"": "ab", "a": "cd"}, {"a/c": "42"}, num_rollouts=2)`."""

    async def search(policy, answers=None, *, invalid=(), ppm=None, num_rollouts, annotation="terminal", **settings):
        policy = {path: list(names) for path, names in policy.items()}
        settings = {"num_candidates": 2, "num_rollouts": num_rollouts, "annotation": annotation, **settings}
        world = {"name": "world", "settings": settings, "truth": "42", "policy": policy, "invalid": list(invalid)}
        return await golden.search_world({**world, "answers": answers or {}, "ppm": ppm or {}})

    return search


@pytest.fixture(scope="session")
def at(golden):
    """Return the node of a tree at a path such as "a/b"."""

    def node_at(tree, path):
        return next(node for node in tree.walk() if golden.path_of(node.prefix()) == path)

    return node_at


class ExecExecutor:
    """Runs trusted steps in this process. A checkpoint names a copy of the variables."""

    def __init__(self):
        self.states = {}
        self.codes = []

    async def run(self, checkpoint, code):
        self.codes.append(code)
        printed = []
        state = {**self.states[checkpoint]} if checkpoint else {}
        state["print"] = lambda *values: printed.append(" ".join(map(str, values)))
        try:
            exec(code, state)
        except Exception as error:
            return Execution(Verdict.EXCEPTION, error=repr(error))
        name = f"state-{len(self.codes)}"
        self.states[name] = state
        return Execution(Verdict.OK, output="".join(f"{line}\n" for line in printed), checkpoint=name)

    async def release(self, checkpoint):
        del self.states[checkpoint]


class NumberJudge:
    """Answers are the same if their values are equal. `comparisons` are those that it was asked for."""

    def __init__(self):
        self.comparisons = []

    async def equivalent(self, answer, other):
        self.comparisons.append((answer, other))
        return float(answer) == float(other)

    correct = equivalent


@pytest.fixture
def executor():
    return ExecExecutor()


@pytest.fixture
def judge():
    return NumberJudge()


@pytest.fixture
def problem():
    return Problem("p", "Tom has 34 apples and buys 12. How many does he have?", "46")
