"""Flows: the paper on a few pages (evolution, round, shard), and the recipe that holds every number of a run.

The way in is `flows.evolution.evolution`. Prefect is imported here and in tasks/ only; never imports cli or serve.
"""
