"""Flows: the paper on a few pages (evolution, round, shard), and the recipe, which holds every number of a run.

The way in is `flows.evolution.evolution`. Never imports cli or serve.
"""
