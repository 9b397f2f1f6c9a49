"""What a step says of its own end, taken for no more than it is: it may have been written by the step's code."""

from __future__ import annotations

import json

STATUSES = frozenset({"ok", "exception", "memory", "forbidden"})
MAX_ERROR_CHARS, MAX_DEPTH = 2000, 16


def checked_reply(frame: bytes, token: str, *, max_echo_chars: int) -> dict:
    """What a step's reply says, as far as it is a reply: only known fields of their types; empty if it is none."""
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
    """Whether the other side can read it however deep it stands itself."""
    if not isinstance(value, dict | list):
        return True
    items = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_shallow(item, depth - 1) for item in items)
