"""The shipped questions about a run, one .sql file each; `run` asks one by the name of its file.

The first line of each file is the question, and the paper's table if there is one. Imports no other room but rstar.
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
    """Ask one question; `con` comes from `store.catalog.open_catalog`."""
    return fetch(con, text(name))
