"""What one step may use, and how many interpreters are kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one step; every provider keeps the same ones.

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
