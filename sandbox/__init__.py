"""Runs the code of steps: `sandbox.providers.open_sandbox` is the way in. Loaded by the servers too, so empty."""
