"""The questions a run is asked, one .sql file each, named after the file.

Each starts with its question and, where there is one, the paper's table.
"""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl

from rstar.protocols import UserError
from store.catalog import fetch

_FOLDER = Path(__file__).parent


def names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.sql")))


def text(name: str) -> str:
    """The SQL of one question."""
    if name not in names():
        raise UserError(f"no query {name!r}; there are {', '.join(names())}")
    return (_FOLDER / f"{name}.sql").read_text(encoding="utf-8")


def run(con: duckdb.DuckDBPyConnection, name: str) -> pl.DataFrame:
    """Ask one question through a connection of `store.catalog.open_catalog`."""
    return fetch(con, text(name))
