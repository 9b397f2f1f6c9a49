"""The world of the demo, and of nothing else: problems with exact truth, their writer, and a tiny base model.

The ways in are `miniature.problems`, `miniature.writer` and `python -m miniature.base.pretrain`.
Imports problems and models besides rstar and domains; nothing outside may import `miniature.families`.
"""
