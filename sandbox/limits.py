"""The limits of a step, and the number of kept interpreters."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one step, the same for every provider. Raises ValueError for a limit of zero or less.

    `memory_bytes` limits what the steps of a trajectory add to a fresh interpreter; the interpreter itself is extra.
    """

    seconds: float = 5.0  # wall-clock time of one step
    memory_bytes: int = 512 * 2**20
    output_bytes: int = 64 * 2**10
    file_bytes: int = 16 * 2**20  # of each file that a step writes, and of all files in a trajectory's folder
    num_open_files: int = 64
    num_checkpoints: int = 128  # kept interpreters of all workers; an evicted one is restored by running its steps
    num_retries: int = 2  # if the sandbox itself dies
    guarded: bool = True  # use the audit hook too; without it only the kernel's protections are left

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("num_retries", "guarded") and not value > 0:
                raise ValueError(f"limits: {field.name} is {value}; it must be more than 0")
        if self.num_retries < 0:
            raise ValueError(f"limits: num_retries is {self.num_retries}; it must be 0 or more")
