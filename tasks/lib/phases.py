"""A phase of a round: its cost, and the mark that it is done.

The row of table `rounds` is written after the phase's own files, so that where the row is, they are: a run that is
resumed skips the phase, whatever Prefect remembers.
"""

from __future__ import annotations

import json
import resource
import time
from types import TracebackType
from typing import Self

from store import files, shards
from store.layout import Run


def finished(run: Run, round: int, phase: str, *products: str) -> dict[str, int] | None:
    """Return what a finished phase counted; None where it is still to do, or one of its products was deleted."""
    url = run.rounds(round, phase)
    if not all(map(files.exists, (url, *products))):
        return None
    counts: dict[str, int] = json.loads(shards.read_rows(url, "rounds")[0]["counts"])
    return counts


class Phase:
    """Measures the block it surrounds; leaves no row where the block fails."""

    def __init__(self, run: Run, round: int, phase: str, *, recipe: str) -> None:
        self.run, self.round, self.phase, self.recipe = run, round, phase, recipe
        self.counts: dict[str, int] = {}
        self.num_tokens = 0
        self.child_memory_bytes = 0  # the peak of a process that is not a child of this one
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            return
        row = {
            "run": self.run.name,
            "round": self.round,
            "phase": self.phase,
            "seconds": self.seconds or time.monotonic() - self._start,
            "num_tokens": self.num_tokens,
            "peak_memory_bytes": max(peak_memory_bytes(), self.child_memory_bytes),
            "counts": json.dumps(self.counts, sort_keys=True),
            "recipe": self.recipe,
        }
        shards.write_rows(self.run.rounds(self.round, self.phase), "rounds", [row])


def peak_memory_bytes() -> int:
    """Return the largest resident memory so far, of this process or the largest child that ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) * 1024
