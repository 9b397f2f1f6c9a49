"""The one-line description of a failed step: type, message, line. Imports only the standard library."""

from __future__ import annotations

import re

MAX_MESSAGE_CHARS = 500
MAX_LINE_CHARS = 120


def describe_error(kind: str, message: str, line: int | None, code: str) -> str:
    """Return `ZeroDivisionError: division by zero (line 2: x = 1 / 0)`; `line` counts from 1 within the step."""
    kind = kind[:MAX_MESSAGE_CHARS]
    text = f"{kind}: {message[:MAX_MESSAGE_CHARS]}" if message else kind
    if line is None:
        return text
    lines = re.split(r"\r\n|\r|\n", code)
    source = lines[line - 1].strip()[:MAX_LINE_CHARS] if 0 < line <= len(lines) else ""
    return f"{text} (line {line}: {source})" if source else f"{text} (line {line})"
