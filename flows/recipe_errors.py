"""The first complaint about a recipe, in one line."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, recipe: type[BaseModel]) -> str:
    """Turn Pydantic's first complaint into: key: what it got, what is allowed."""
    first = error.errors(include_url=False)[0]
    location = [part for part in first["loc"] if part != "[key]"]
    key = ".".join(str(part + 1) if isinstance(part, int) else part for part in location)
    if first["type"] == "extra_forbidden":
        allowed = allowed_keys(recipe, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), allowed, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"{key}: unknown key, got {first['input']!r}; {hint}allowed: {', '.join(allowed)}"
    if first["type"] == "missing":
        return f"{key}: missing; the recipe must say it"
    reason = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if first["type"] == "value_error":
        return f"{key}: {reason}" if key else reason
    return f"{key}: got {first['input']!r}, {reason}"


def allowed_keys(recipe: type[BaseModel], location: list[str | int]) -> list[str]:
    """List the keys of the section at `location`."""
    section: Any = recipe
    for part in location:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        section = next((arg for arg in get_args(annotation) if hasattr(arg, "model_fields")), annotation)
    return list(section.model_fields)
