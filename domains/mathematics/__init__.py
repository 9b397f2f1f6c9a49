"""Mathematics: code-augmented steps, prompts and the judge of final answers.

The way in is `domains.mathematics.domain.DOMAIN`. Imports rstar only, never torch, Prefect or Docker.
"""
