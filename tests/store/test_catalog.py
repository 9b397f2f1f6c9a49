"""DuckDB over a run."""

import shutil
from pathlib import Path

import duckdb
import pytest

from rstar.protocols import UserError
from store.catalog import open_catalog, query
from store.layout import RUN_FORMAT, Run
from store.schema import TABLES
from store.shards import to_arrow, write_rows

RECIPE = f'{{"format": {RUN_FORMAT}}}'


def count(con, table):
    return con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]


def test_every_table_has_a_view_with_the_written_columns_even_without_files(tmp_path):
    (tmp_path / "recipe.json").write_text(RECIPE)
    with open_catalog(tmp_path) as con:
        for table in TABLES.values():
            view = con.sql(f"SELECT * FROM {table.name}").to_arrow_table()
            assert view.num_rows == 0
            assert view.schema.types == to_arrow(table.name, []).schema.types, table.name


def test_any_client_can_open_the_catalog_file_and_read_the_column_comments(small_run):
    open_catalog(small_run.root).close()
    with duckdb.connect(small_run.catalog, read_only=True) as con:
        assert count(con, "problems") == 5
        assert con.execute("SELECT coverage FROM coverage WHERE round = 2 AND level = 'all'").fetchone() == (75.0,)
        sql = "SELECT comment FROM duckdb_columns() WHERE table_name = 'nodes' AND column_name = 'visits'"
        assert con.execute(sql).fetchone() == ("Visit count N.",)


def test_a_new_shard_is_visible_without_reopening(small_run):
    with open_catalog(small_run.root) as con:
        before = count(con, "rounds")
        row = con.sql("SELECT * FROM rounds LIMIT 1").to_arrow_table().to_pylist()[0]
        write_rows(small_run.rounds(2, "search"), "rounds", [{**row, "round": 2}])
        assert count(con, "rounds") == before + 1


def test_the_first_file_of_a_table_is_visible_after_reopening(build_small_run, small_run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "recipe.json").write_text(RECIPE)
    open_catalog(tmp_path / "empty").close()
    build_small_run(tmp_path / "empty")
    open_catalog(tmp_path / "empty").close()
    with duckdb.connect(str(tmp_path / "empty" / "catalog.duckdb"), read_only=True) as con:
        assert count(con, "problems") == 5


def test_the_catalog_of_a_moved_run_is_rewritten_when_it_is_opened(small_run, tmp_path):
    open_catalog(small_run.root).close()
    moved = tmp_path / "it's [moved] here"
    shutil.move(small_run.root, moved)
    assert query(moved, "SELECT count(*) AS n FROM nodes").rows() == [(43,)]
    with duckdb.connect(str(moved / "catalog.duckdb"), read_only=True) as con:
        assert count(con, "nodes") == 43


def test_a_locked_or_corrupt_catalog_file_stops_no_query(small_run):
    open_catalog(small_run.root).close()
    with duckdb.connect(small_run.catalog):
        assert query(small_run.root, "SELECT count(*) FROM problems").rows() == [(5,)]
    Path(small_run.catalog).write_bytes(b"not a database")
    assert query(small_run.root, "SELECT count(*) FROM problems").rows() == [(5,)]
    with duckdb.connect(small_run.catalog, read_only=True) as con:
        assert count(con, "problems") == 5


def test_a_problem_in_two_files_is_one_problem(small_run):
    shutil.copy(small_run.problems("train"), small_run.problems("copy"))
    assert query(small_run.root, "SELECT count(*) FROM problems").rows() == [(5,)]


def test_no_statement_changes_the_run(small_run):
    query(small_run.root, "DROP VIEW nodes")
    assert query(small_run.root, "SELECT count(*) FROM nodes").rows() == [(43,)]


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        ("SELECT * FROM trees", "SQL: Catalog Error: Table with name trees does not exist"),
        ("SELECT visit FROM nodes", 'SQL: Binder Error: Referenced column "visit" not found .*visits'),
        ("SELEC 1", "SQL: Parser Error"),
    ],
)
def test_wrong_sql_is_an_error_of_one_line(small_run, sql, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        query(small_run.root, sql)
    assert "\n" not in str(caught.value)


def test_a_corrupt_table_is_named(small_run):
    Path(small_run.nodes(1, 1)).write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"round=1/shard=0001\.parquet.*; delete that file"):
        query(small_run.root, "SELECT sum(visits) FROM nodes")


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no run at .*nothing"):
        open_catalog(tmp_path / "nothing")
    assert not Run(tmp_path / "nothing").exists()


def test_a_run_of_an_earlier_version_is_refused(small_run):
    Path(small_run.recipe).write_text("{}")
    with pytest.raises(UserError, match=r"small: made by an earlier version of rstar .* start a new run$"):
        open_catalog(small_run.root)
