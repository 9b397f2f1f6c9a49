"""Checks a step's reply about its own end. The step's code may have written the reply, so nothing in it is trusted."""

from __future__ import annotations

import json

STATUSES = frozenset({"ok", "exception", "memory", "forbidden"})
MAX_ERROR_CHARS, MAX_DEPTH = 2000, 16


def checked_reply(frame: bytes, token: str, *, max_echo_chars: int) -> dict:
    """The known fields of a reply, each of the right type and bounded; {} if the frame is no valid reply."""
    try:
        reply = json.loads(frame)
    except (ValueError, RecursionError, MemoryError):
        return {}
    if type(reply) is not dict or reply.get("token") != token:
        return {}
    status, error, echo, memory = (reply.get(key) for key in ("status", "error", "echo", "memory_bytes"))
    if [type(each) for each in (status, error, echo, memory)] != [str, str, str, int] or status not in STATUSES:
        return {}
    checked = {
        "status": status, "error": _encodable(error[:MAX_ERROR_CHARS]), "echo": _encodable(echo[:max_echo_chars]),
        "memory_bytes": min(max(memory, 0), 2**62), "kept": status == "ok" and reply.get("kept") is True,
    }  # fmt: skip
    if type(seconds := reply.get("seconds")) is float and seconds >= 0:
        checked["seconds"] = seconds
    variables = reply.get("variables")
    if type(variables) is dict and _is_shallow(variables):
        checked["variables"] = variables
    return checked


def _encodable(text: str) -> str:
    return text.encode("utf-8", errors="replace").decode()


def _is_shallow(value: object, depth: int = MAX_DEPTH) -> bool:
    """Whether the value is nested at most `depth` levels, so that a recursive reader can read it."""
    if not isinstance(value, dict | list):
        return True
    items = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_shallow(item, depth - 1) for item in items)
