"""DuckDB over a run: views on its tables, and `catalog.duckdb`, which any DuckDB client can open.

The views find the files by absolute globs, so they include new shards at once. A table without files is an empty view
with the right columns. `open_catalog` rewrites `catalog.duckdb` if the run's folder was moved, or if a table has got
its first file. A run in an object store has no `catalog.duckdb`, because a client would need DuckDB's httpfs extension;
`open_catalog` reads such a run through s3fs.
"""

from __future__ import annotations

import glob
import secrets
from pathlib import Path

import duckdb
import polars as pl

from rstar.protocols import UserError
from store.files import failure, filesystem, is_remote
from store.layout import Run, check_format
from store.schema import TABLES, Table

_DUCKDB_TYPES = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "list<item: string>": "VARCHAR[]",
    "list<item: double>": "DOUBLE[]",
    "list<element: string>": "VARCHAR[]",
    "list<element: double>": "DOUBLE[]",
}


def open_catalog(root: str | Path) -> duckdb.DuckDBPyConnection:
    """A connection with a view for every table. Also brings `catalog.duckdb` up to date.

    The connection is in memory: it holds no lock, and no statement changes the run. Raises UserError if there is no
    run, or a run of another format.
    """
    run = Run(root)
    if not run.exists():
        raise UserError(f"no run at {run.root}: no recipe.json and no tables; check the path, or make it with rstar")
    check_format(run)
    statements = _statements(run)
    if not is_remote(run.root):
        _refresh(Path(run.catalog), statements)
    con = duckdb.connect()
    con.execute("SET python_enable_replacements = false")  # else a table name may match a Python variable
    if is_remote(run.root):
        con.register_filesystem(filesystem(run.root))
    try:
        _execute(con, statements)
    except duckdb.Error as error:
        con.close()
        raise UserError(_complaint(error)) from error
    return con


def query(root: str | Path, sql: str) -> pl.DataFrame:
    """The answer of one SQL statement over the run at `root`."""
    with open_catalog(root) as con:
        return fetch(con, sql)


def fetch(con: duckdb.DuckDBPyConnection, sql: str) -> pl.DataFrame:
    """The answer of one SQL statement. DuckDB's errors become a UserError of one line, also for a corrupt file."""
    try:
        answer: duckdb.DuckDBPyRelation | None = con.sql(sql)
        return pl.DataFrame() if answer is None else pl.DataFrame(answer.to_arrow_table())
    except duckdb.Error as error:
        raise UserError(_complaint(error)) from error
    except OSError as error:  # from s3fs, through DuckDB
        raise failure("read", "the run's tables", error) from error


def _statements(run: Run) -> list[str]:
    tables = [_view(run, table) for table in TABLES.values()]
    more = (Path(__file__).parent / "views.sql").read_text(encoding="utf-8")
    comments = [
        f"COMMENT ON COLUMN {table.name}.{_quote(column.name)} IS {_literal(column.doc)}"
        for table in TABLES.values()
        for column in table.columns
    ]
    return tables + [part for part in more.split(";\n") if part.strip()] + comments


def _view(run: Run, table: Table) -> str:
    columns = ", ".join(_quote(name) for name in table.names)
    if run.files(table.name):
        files = _literal(f"{glob.escape(run.root)}/{table.glob}")
        # Two files may hold the same problem. Its id is a hash of its text, so the rows are equal.
        distinct = "DISTINCT ON (id) " if table.name == "problems" else ""
        body = f"SELECT {distinct}{columns} FROM read_parquet({files}, hive_partitioning = false)"
    else:
        nulls = ", ".join(f"NULL::{_DUCKDB_TYPES[str(c.type)]} AS {_quote(c.name)}" for c in table.columns)
        body = f"SELECT {nulls} WHERE false"
    return f"CREATE VIEW {table.name} AS {body}"


def _refresh(path: Path, statements: list[str]) -> None:
    """Rewrite the catalog file if its statements differ. A file that cannot be written stays as it is."""
    text = ";\n".join(statements)
    try:
        if _text_of(path) == text:
            return
    except _InUseError:
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with duckdb.connect(str(temporary)) as con:
            _execute(con, [*statements, f"CREATE TABLE catalog_text AS SELECT {_literal(text)} AS text"])
        temporary.replace(path)
    except (duckdb.Error, OSError):
        # The file is a convenience for other clients. Queries here must work on a read-only or full disk too.
        pass
    finally:
        temporary.unlink(missing_ok=True)


class _InUseError(Exception):
    """Another client holds the catalog file open for writing."""


def _text_of(path: Path) -> str | None:
    """The statements that a catalog file was made from; None if it has none, or is no catalog."""
    if not path.exists():
        return None
    try:
        with duckdb.connect(str(path), read_only=True) as con:
            row = con.execute("SELECT text FROM catalog_text").fetchone()
            return str(row[0]) if row else None
    except duckdb.Error as error:
        if isinstance(error, duckdb.ConnectionException) or "Could not set lock" in str(error):
            raise _InUseError from error
        return None


def _execute(con: duckdb.DuckDBPyConnection, statements: list[str]) -> None:
    for statement in statements:
        con.execute(statement)


def _complaint(error: duckdb.Error) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    what = lines[0] if lines else type(error).__name__
    if "magic bytes" in what or "Parquet" in what or "parquet" in what:
        return f"{what}; delete that file and run the step that makes it again"
    hint = next((line for line in lines[1:] if line.startswith(("Candidate", "Did you mean"))), "")
    return f"SQL: {what} {hint}".strip()


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
