"""What one step may use, and how many interpreters are kept."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one step; every provider keeps the same ones. Raises ValueError for one that nothing can keep.

    `memory_bytes` counts what the steps of a trajectory add to a fresh interpreter, not the interpreter itself.
    """

    seconds: float = 5.0  # wall clock, one step
    memory_bytes: int = 512 * 2**20
    output_bytes: int = 64 * 2**10
    file_bytes: int = 16 * 2**20  # each file a step writes
    num_open_files: int = 64
    num_checkpoints: int = 128  # kept interpreters, all workers together; evicted ones come back by re-execution
    num_retries: int = 2  # after the sandbox itself died
    guarded: bool = True  # Python's own checks too; without them only the walls behind them stand

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("num_retries", "guarded") and not value > 0:
                raise ValueError(f"limits: {field.name} is {value}; it must be more than 0")
        if self.num_retries < 0:
            raise ValueError(f"limits: num_retries is {self.num_retries}; it must be 0 or more")
