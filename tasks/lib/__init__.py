"""Helpers that tasks share: engines, concurrency, phases, progress, trees as rows. Nothing here is a task.

There is no single way in: each file is one helper. Never imports a task, flows, cli or serve.
"""
