"""`rstar serve`: a run's policy and PPM over HTTP, as OpenAI chat completions.

The way in is `serve.server.serve_run`. It must never import cli.
"""
