"""Inference (Section 4.1): deep thinking and beam search with the PPM, and sampling from the policy alone.

The way in is `rstar.inference.solving.solve`. Imports rstar only.
"""
