"""The tables and files of a run: written whole, read back, and queried with DuckDB.

`store.layout.Run` says where each file lies; `store.catalog.open_catalog` opens all tables. Imports no other room but
rstar.
"""
