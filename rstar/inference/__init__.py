"""Inference: deep thinking with the PPM, step beam search, and whole trajectories by the policy alone.

The way in is `rstar.inference.solving.solve`. Section 4.1, "Inference". Imports rstar only.
"""
