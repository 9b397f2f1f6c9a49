"""The fast path: evaluates steps of plain arithmetic without a process of their own.

The way in is `arithmetic.run_arithmetic`, which runs in the caller's process and imports `rstar.protocols`. In the
container only `plain.encode` is used; `plain` must import only the standard library.
"""
