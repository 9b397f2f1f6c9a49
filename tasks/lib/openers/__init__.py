"""Openers of engines, one file for each kind, with `open_policy` and `open_scorer`.

The way in is the table OPENERS in tasks/lib/engines.py. A new kind needs a file here and a line there. Never imports
Prefect, flows, cli or serve.
"""
