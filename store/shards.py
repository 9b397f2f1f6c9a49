"""One Parquet file of one table: written whole or not at all, and the unit that a retry replaces.

Not in the paper. Equal rows give equal bytes, because rows are sorted by the table's key and the file has no timestamp.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from rstar.protocols import UserError
from store.files import read_bytes, write_bytes
from store.schema import PLACEMENT_COLUMNS, TABLES, TIMING_COLUMNS, Table

Row = Mapping[str, Any]


def write_rows(url: str, table: str, rows: Iterable[Row]) -> int:
    """Replace the file at `url` by these rows of `table`; return the number of rows.

    Raises TypeError or ValueError if a row does not fit the schema. Then nothing is written.
    """
    content = to_arrow(table, rows)
    write_bytes(url, to_bytes(content))
    return int(content.num_rows)


def read_table(url: str, table: str) -> pa.Table:
    """The file at `url` as an Arrow table with exactly the columns of `table`."""
    try:
        content = pq.ParquetFile(pa.BufferReader(read_bytes(url))).read()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot read {url}: not a whole Parquet file; delete it and run the step again") from error
    missing = [name for name in TABLES[table].names if name not in content.column_names]
    if missing:
        raise UserError(
            f"cannot read {url}: no column {', '.join(missing)}; not a {table} table of this version, write it again"
        )
    return content.select(TABLES[table].names)


def read_rows(url: str, table: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(url, table).to_pylist()
    return rows


def to_arrow(table: str, rows: Iterable[Row]) -> pa.Table:
    """The rows as an Arrow table in the written schema, sorted by the table's key.

    A row may omit a nullable column. An unknown column, or a missing or null required one, raises ValueError.
    """
    spec = TABLES[table]
    content = list(rows)
    for row in content:
        _check(spec, row)
    arrays = [_array([row.get(c.name) for row in content], c.type) for c in spec.columns]
    return _sorted(pa.Table.from_arrays(arrays, schema=spec.schema), spec)


def comparable(content: pa.Table, table: str) -> pa.Table:
    """The part of a table that equal runs share: all columns but timing and placement, rows sorted by key."""
    excluded = TIMING_COLUMNS | PLACEMENT_COLUMNS
    kept = [name for name in TABLES[table].names if name not in excluded]
    return _sorted(content.select(kept), TABLES[table])


def to_bytes(content: pa.Table) -> bytes:
    """A Parquet file, the same bytes for the same table."""
    sink = pa.BufferOutputStream()
    pq.write_table(content.combine_chunks(), sink, compression="zstd", compression_level=3, row_group_size=65_536)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _check(table: Table, row: Row) -> None:
    unknown = row.keys() - set(table.names)
    if unknown:
        raise ValueError(f"{table.name}: unknown column {', '.join(sorted(unknown))}")
    for column in table.columns:
        if not column.nullable and row.get(column.name) is None:
            raise ValueError(f"{table.name}: column {column.name} is missing")


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, type=kind)
    except UnicodeEncodeError:
        # A step can print a lone surrogate, which JSON can carry but UTF-8 cannot. Store it as a question mark.
        return pa.array([_utf8(value) for value in values], type=kind)


def _utf8(value: Any) -> Any:
    if isinstance(value, list):
        return [_utf8(one) for one in value]
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _sorted(content: pa.Table, table: Table) -> pa.Table:
    # Arrow cannot sort by list columns, so Python computes the order.
    keys = list(zip(*(content[name].to_pylist() for name in table.key), strict=True))
    order = sorted(range(content.num_rows), key=keys.__getitem__)
    return content.take(pa.array(order, type=pa.int64()))
