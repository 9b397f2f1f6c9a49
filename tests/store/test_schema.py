"""The schema of the tables."""

from store.schema import PLACEMENT_COLUMNS, TABLES, TIMING_COLUMNS


def test_every_column_has_a_sentence():
    for table in TABLES.values():
        for column in table.columns:
            assert column.doc.endswith("."), (table.name, column.name)


def test_keys_are_columns_that_are_never_null():
    for table in TABLES.values():
        required = {column.name for column in table.columns if not column.nullable}
        assert set(table.key) <= required, table.name


def test_timing_columns_are_declared():
    assert {
        "seconds",
        "peak_memory_bytes",
        "cached_tokens",
        "policy_seconds",
        "sandbox_seconds",
        "scorer_seconds",
    } == TIMING_COLUMNS
    assert not TIMING_COLUMNS & PLACEMENT_COLUMNS


def test_every_table_made_by_a_run_names_its_run_round_and_recipe():
    for table in TABLES.values():
        if table.name != "problems":
            assert {"run", "round", "recipe"} <= set(table.names), table.name
