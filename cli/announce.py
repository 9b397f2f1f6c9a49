"""What a command prints before its work starts: which models it uses, and whether the sandbox is the weaker one."""

from __future__ import annotations

from rich.console import Console

from cli.console import errors
from flows.recipe import Recipe
from sandbox.providers import choose
from tasks.lib.engines import Models


def announce(recipe: Recipe, models: Models) -> None:
    """Print the models and the sandbox to stderr."""
    errors.print(f"policy {models.policy}, PPM {models.ppm or 'none'}", style="dim", markup=False)
    engine = models.engine
    if engine.kind == "vllm" and not (engine.urls and (engine.ppm_urls or not models.ppm)):
        logs = engine.log_dir or "the temporary folder"
        errors.print(f"starting vLLM; this takes a while (logs in {logs})", style="dim", markup=False)
    announce_sandbox(recipe.sandbox.provider, errors)


def announce_sandbox(provider: str, console: Console) -> None:
    """Warn if steps will run in the local sandbox; if `auto` chose it, say why."""
    chosen, reason = choose(provider)
    if chosen == "local":
        because = reason.removeprefix("sandbox: ").partition(";")[0]
        hint = f"{because}; see `rstar doctor`" if because else "see `rstar doctor`"
        console.print(f"steps run in the local sandbox, which does not stop an attacker ({hint})", markup=False)
