"""Engines over HTTP: vLLM servers started on this machine, and OpenAI-compatible endpoints anywhere.

The way in: `completions.CompletionsPolicy`, `pooling.PoolingScorer`, and `vllm_servers.served`, which starts servers.
Must never import vLLM, which has its own Python environment, or inprocess/ or training/.
"""
