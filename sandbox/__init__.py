"""Runs the code of steps. The way in is `sandbox.providers.open_sandbox`.

Imports no other room but rstar. This file is copied into the container too, so it must import nothing.
"""
