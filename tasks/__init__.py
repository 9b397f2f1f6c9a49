"""Prefect tasks, one in each file, named as in the paper. A task reads files, calls the other rooms, and writes files.

The way in is flows/. tasks/lib/ holds what tasks share. Never imports flows, cli or serve.
"""
