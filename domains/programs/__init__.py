"""Programs: Python programs written step by step, which are correct if their unit tests pass.

The way in is `domains.programs.domain.DOMAIN`. It is the smallest domain: start from it to write another. Imports rstar
only.
"""
