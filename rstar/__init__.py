"""The algorithm of rStar-Math (arXiv 2501.04519): pure Python, without I/O and without frameworks.

The ways in are `rstar.search.search` and `rstar.inference.solving.solve`.
Imports the standard library only, and nothing else of this project.
"""
