"""Programs: Python functions written step by step, right where their unit tests pass.

The way in is `domains.programs.domain.DOMAIN`. The smallest whole domain, to start a new one from. Imports rstar only.
"""
