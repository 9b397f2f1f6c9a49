"""Where the files of a run lie, on a disk or in an object store.

One folder a run; every path is a string, a local path or an `s3://` URL. `part` splits a table of a round into files
that different tasks write, as the phases of a round do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from store.files import exists, is_remote, matching
from store.schema import TABLES


@dataclass(frozen=True, slots=True, init=False)
class Run:
    """The folder of one run. `Run("runs/demo").nodes(1, 0)` is runs/demo/trees/round=1/shard=0000.parquet."""

    root: str

    def __init__(self, root: str | Path) -> None:
        text = str(root)
        # Absolute, because a worker or a catalog may look from another folder.
        absolute = text.rstrip("/") if is_remote(text) else str(Path(text).expanduser().absolute())
        object.__setattr__(self, "root", absolute)

    @property
    def name(self) -> str:
        return self.root.rsplit("/", 1)[-1]

    def path(self, *parts: str) -> str:
        return "/".join((self.root, *parts))

    @property
    def recipe(self) -> str:
        return self.path("recipe.json")

    @property
    def catalog(self) -> str:
        return self.path("catalog.duckdb")

    def problems(self, name: str) -> str:
        return self.path("problems", f"{name}.parquet")

    def nodes(self, round: int, shard: int) -> str:
        return self.path("trees", f"round={round}", f"shard={shard:04d}.parquet")

    def trajectories(self, round: int, part: str = "") -> str:
        return self._of_round("trajectories", round, part)

    def sft(self, round: int, part: str = "") -> str:
        return self._of_round("sft", round, part)

    def pairs(self, round: int, part: str = "") -> str:
        return self._of_round("pairs", round, part)

    def evaluations(self, round: int, part: str = "") -> str:
        return self._of_round("evaluations", round, part)

    def rounds(self, round: int, part: str = "") -> str:
        return self._of_round("rounds", round, part)

    def models(self, round: int, kind: str) -> str:
        """Folder of a checkpoint: kind is policy or ppm."""
        return self.path("models", f"round={round}", kind)

    def report(self, suffix: str = "html") -> str:
        return self.path(f"report.{suffix}")

    def exists(self) -> bool:
        """Whether anything of the run is there."""
        return exists(self.recipe) or any(self.files(table) for table in TABLES)

    def files(self, table: str) -> list[str]:
        """The files of a table that exist."""
        return matching(self.root, TABLES[table].glob)

    def shards(self, round: int) -> list[str]:
        """The node files of a round that exist."""
        return matching(self.root, f"trees/round={round}/*.parquet")

    def _of_round(self, table: str, round: int, part: str) -> str:
        return self.path(table, f"round={round}{'-' + part if part else ''}.parquet")
