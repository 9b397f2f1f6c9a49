"""The algorithm of rStar-Math (arXiv 2501.04519), pure: the standard library only, no I/O, no framework.

The ways in are `rstar.search.search` and `rstar.inference.solving.solve`. Imports nothing else of this project.
"""
