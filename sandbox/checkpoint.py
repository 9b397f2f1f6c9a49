"""The state after a sequence of steps, described so that it can always be restored."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sandbox.inside.fast_path.arithmetic import Variables

WARM_MODULES = ("numpy", "sympy")  # imported by the warm root, which also seeds their random states
_WARM = re.compile(r"\b(?:numpy|sympy|scipy|mpmath)\b")  # matches any way to import one


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A step that ran, with the steps before it.

    `variables` are for the fast path. They are None unless each step so far took the fast path or was tame (see
    `sandbox.inside.fast_path.plain`).
    """

    key: str
    parent: Checkpoint | None
    code: str
    variables: Variables | None
    warm: bool  # whether some step imports a module that is slow to import
    seconds: float = 0.0  # time that the step took
    keepable: bool = True  # False if forks would share open files, or if running the step again costs less than a fork
    again_seconds: float = 0.0  # time to run it and the unkept steps before it again

    @property
    def tree(self) -> str:
        """The key of the first step, which identifies the tree: trees take turns on a server."""
        return self.parent.tree if self.parent else self.key

    def path(self) -> list[Checkpoint]:
        """The steps from the first to this one. Running their codes in order restores this state."""
        path, checkpoint = [], self
        while checkpoint is not None:
            path.append(checkpoint)
            checkpoint = checkpoint.parent
        return path[::-1]


def imports_warm_modules(code: str) -> bool:
    return _WARM.search(code) is not None
