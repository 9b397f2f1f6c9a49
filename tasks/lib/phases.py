"""Phases of a round: what each cost, and whether it is finished.

The row of a phase in table `rounds` is written after the phase's own files. So a resumed run can skip a phase that has
a row, whatever state Prefect has kept.
"""

from __future__ import annotations

import json
import resource
import time
from types import TracebackType
from typing import Self

from store import files, shards
from store.layout import Run


def finished(run: Run, round: int, phase: str, *outputs: str) -> dict[str, int] | None:
    """Return the counts of a finished phase; None if it is not finished or one of its output files is missing."""
    url = run.rounds(round, phase)
    if not all(map(files.exists, (url, *outputs))):
        return None
    counts: dict[str, int] = json.loads(shards.read_rows(url, "rounds")[0]["counts"])
    return counts


class Phase:
    """A context manager that measures a phase and writes its row, unless the block fails.

    The block sets `counts` and `num_tokens`. It can set `seconds`, which is otherwise the time of the block.
    """

    def __init__(self, run: Run, round: int, phase: str, *, recipe: str) -> None:
        self.run, self.round, self.phase, self.recipe = run, round, phase, recipe
        self.counts: dict[str, int] = {}
        self.num_tokens = 0
        self.child_memory_bytes = 0  # peak of processes that are not children of this one, such as forked trainers
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
    """Return the peak resident memory of this process or, if that is larger, of its largest ended child."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) * 1024
