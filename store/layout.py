"""Where the files of a run are, on a disk or in an object store.

Each run has one folder. Every path is a string: a local path or an `s3://` URL.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rstar.protocols import UserError
from store.files import exists, is_remote, matching, read_bytes
from store.schema import TABLES

#: The format of a run's folder: its layout, tables and recipe. `recipe.json` carries it under the key "format".
RUN_FORMAT = 2


@dataclass(frozen=True, slots=True, init=False)
class Run:
    """The folder of one run. `Run("runs/demo").nodes(1, 0)` is runs/demo/trees/round=1/shard=0000.parquet."""

    root: str

    def __init__(self, root: str | Path) -> None:
        text = str(root)
        # Absolute, because a worker or a DuckDB client may have another working directory.
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

    def trajectories(self, round: int) -> str:
        return self._of_round("trajectories", round)

    def sft(self, round: int, part: str = "") -> str:
        """The main SFT file of a round, or with `part` a further file of the same table."""
        return self._of_round("sft", round, part)

    def pairs(self, round: int) -> str:
        return self._of_round("pairs", round)

    def evaluations(self, round: int) -> str:
        return self._of_round("evaluations", round)

    def rounds(self, round: int, phase: str) -> str:
        """The file with the one row of a phase; each phase of a round writes its own."""
        return self._of_round("rounds", round, phase)

    def models(self, round: int, kind: str) -> str:
        """The folder of a checkpoint; `kind` is policy or ppm."""
        return self.path("models", f"round={round}", kind)

    def report(self, suffix: str = "html") -> str:
        return self.path(f"report.{suffix}")

    def exists(self) -> bool:
        """Whether the run has a recipe or any table."""
        return exists(self.recipe) or any(self.files(table) for table in TABLES)

    def files(self, table: str) -> list[str]:
        """The files of a table that exist."""
        return matching(self.root, TABLES[table].glob)

    def shards(self, round: int) -> list[str]:
        """The node files of a round that exist."""
        return matching(self.root, f"trees/round={round}/*.parquet")

    def _of_round(self, table: str, round: int, part: str = "") -> str:
        return self.path(table, f"round={round}{'-' + part if part else ''}.parquet")


def check_format(run: Run) -> None:
    """Raise a UserError if the run's recipe.json is of another format than RUN_FORMAT. No recipe.json is no error."""
    if not exists(run.recipe):
        return
    try:
        content = json.loads(read_bytes(run.recipe))
    except ValueError:
        raise UserError(f"{run.recipe}: not JSON; restore it, or give another run") from None
    found = content.get("format", 1) if isinstance(content, dict) else 1  # version 0.1 did not write it
    if found != RUN_FORMAT:
        newer = isinstance(found, int) and found > RUN_FORMAT
        advice = "upgrade rstar" if newer else "read it with rstar 0.1, or start a new run"
        raise UserError(
            f"{run.root}: made by {'a later' if newer else 'an earlier'} version of rstar (run format {found}; "
            f"this version reads format {RUN_FORMAT}); {advice}"
        )
