"""`rstar serve`: deep thinking over HTTP, in the form of OpenAI's chat completions.

The way in is `serve.server.serve_run`. Never imports cli.
"""
