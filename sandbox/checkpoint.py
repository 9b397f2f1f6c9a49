"""The state that a sequence of steps left, told so that it can always be made again."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sandbox.inside.fast_path.arithmetic import Variables

WARM_MODULES = ("numpy", "sympy")  # what the warm root has imported, with its random state seeded
_WARM = re.compile(r"\b(?:numpy|sympy|scipy|mpmath)\b")  # however it is imported


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """One step that ran. `variables` are those that the fast path may go on with, if it may go on at all.

    It may while every step so far took it or was tame (`sandbox.inside.fast_path.plain`).
    """

    key: str
    parent: Checkpoint | None
    code: str
    variables: Variables | None
    warm: bool  # some step imports a module that takes long to import
    seconds: float = 0.0  # that the step took
    keepable: bool = True  # not where forks would share what it left open, or where they cost more than running it
    again_seconds: float = 0.0  # that it and the steps before it take which run again for want of an interpreter

    @property
    def tree(self) -> str:
        """The key of the first step of all: what shares it takes turns with what does not."""
        return self.parent.tree if self.parent else self.key

    def path(self) -> list[Checkpoint]:
        """From the first step to this one: running their codes again gives this state."""
        path, checkpoint = [], self
        while checkpoint is not None:
            path.append(checkpoint)
            checkpoint = checkpoint.parent
        return path[::-1]


def imports_warm_modules(code: str) -> bool:
    return _WARM.search(code) is not None
