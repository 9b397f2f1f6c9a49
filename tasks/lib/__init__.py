"""What tasks share: engines, concurrency, phases, progress, rows of trees. Nothing here is a task.

Never imports a task, flows, cli or serve.
"""
