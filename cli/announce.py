"""Which models answer a command, and where their steps run: said on standard error before anything is loaded."""

from __future__ import annotations

from cli.console import announce_sandbox, errors
from flows.recipe import Recipe
from tasks.lib.engines import Models


def announce(recipe: Recipe, models: Models) -> None:
    """Say which models answer, and where steps run where that is no container."""
    announce_models(models)
    announce_sandbox(recipe.sandbox.provider, errors)


def announce_models(models: Models) -> None:
    errors.print(f"policy {models.policy}, PPM {models.ppm or 'none'}", style="dim", markup=False)
    engine = models.engine
    if engine.kind == "vllm" and not (engine.urls and (engine.ppm_urls or not models.ppm)):
        logs = engine.log_dir or "the temporary folder"
        errors.print(f"starting vLLM for them, which takes a while; its log is in {logs}", style="dim", markup=False)
