"""Engines in this process: transformers models that batch the requests of all trees and share their KV caches.

The way in: `policy.TransformersPolicy` and `scorer.TransformersScorer`.
Must never import served/ or training/.
"""
