"""Prefect tasks, one file a task, named as in the paper: each reads, calls something pure, and writes.

The way in is flows/. What tasks share is in tasks/lib/. Never imports flows, cli or serve.
"""
