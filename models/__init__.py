"""Models: the policy and the PPM, as engines that answer a search, and their training.

The way in: inprocess/ runs a checkpoint in this process, served/ asks servers, training/ makes checkpoints.
Must never import Prefect, or a domain by name: an engine is given its `Domain`, a training finds it by its name.
"""
