"""The recipe of a run: stored in the run's folder when it starts, and read back by its flows and by commands."""

from __future__ import annotations

import json
from collections.abc import Sequence

from flows.recipe import IN_FLIGHT, Recipe, apply_override, check_recipe
from flows.recipe_sections import EngineSection
from rstar.protocols import UserError
from store import files
from store.layout import Run, check_format
from store.schema import TABLES

PLACEMENT = (  # keys that do not change results, with which a stored recipe is not compared
    *("run.name", "run.shards", "run.workers", "run.dispatch"),
    *(f"search.{key}" for key in IN_FLIGHT),
    *(f"engine.{key}" for key in EngineSection.model_fields if key != "kind"),
)


def store_recipe(recipe: Recipe, root: str) -> None:
    """Write the recipe to the folder of a new run, or check that it is the recipe of the run there.

    A run takes over a changed `engine` section, because servers may have moved. Raises UserError if any other key that
    changes results, or the number of shards, differs. A run that has written no table yet takes over any recipe.
    """
    run = Run(root)
    if not files.exists(run.recipe) or not any(map(run.files, TABLES)):
        _write(run, recipe)
        return
    stored = read_recipe(root)
    if stored.hash != recipe.hash:
        raise UserError(
            f"{run.root} holds a run of another recipe ({difference(stored, recipe)}); "
            "give another --out, or the recipe that the run was started with"
        )
    if stored.run.shards != recipe.run.shards:
        raise UserError(
            f"{run.root} holds a run with run.shards = {stored.run.shards}, not {recipe.run.shards}; keep that number"
        )
    if stored.engine != recipe.engine:
        _write(run, stored.model_copy(update={"engine": recipe.engine}))


def read_recipe(root: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a run, with `key=value` overrides, which are not stored. Raises UserError."""
    run = Run(root)
    url = run.recipe
    if not files.exists(url):
        raise UserError(f"{root}: no run there (recipe.json is missing); start one with `rstar evolve`")
    try:
        content = json.loads(files.read_bytes(url))
    except ValueError:
        raise UserError(f"{url}: not JSON; restore it, or give another run") from None
    check_format(run)
    for override in overrides:
        apply_override(content, override)
    return check_recipe(content, name=f"{url} with --set {' '.join(overrides)}" if overrides else url)


def _write(run: Run, recipe: Recipe) -> None:
    files.write_bytes(run.recipe, (recipe.model_dump_json(indent=1) + "\n").encode())


def difference(stored: Recipe, recipe: Recipe) -> str:
    """Name the first key in which two recipes differ."""
    left, right = (flatten(each.model_dump(mode="json")) for each in (stored, recipe))
    keys = [key for key in left | right if left.get(key) != right.get(key) and key not in PLACEMENT]
    if not keys:
        return "its keys are the same"
    return f"{keys[0]} is {left.get(keys[0])!r} there and {right.get(keys[0])!r} here"


def flatten(value: object, prefix: str = "") -> dict[str, object]:
    """Return nested sections as dotted keys, with rounds counted from 1."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = [(str(number), item) for number, item in enumerate(value, start=1)]
    else:
        return {prefix: value}
    parts = [flatten(item, f"{prefix}.{key}" if prefix else key) for key, item in items]
    return {key: item for part in parts for key, item in part.items()}
