"""OpenAI's chat completions format: reads requests; writes replies, stream chunks and errors. No I/O.

Additions to the format: a request can have a `budget` ("16", "20000t", "30s"). A reply has a field `rstar` with the
score, runner-up, votes, cost and steps. A stream reports each better trajectory as `reasoning_content`.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from domains.protocol import Domain
from report.solution import markdown, summary
from rstar.inference.budget import Budget
from rstar.inference.solution import Ending, Solution
from rstar.inference.thinking import ScoredTrajectory
from rstar.protocols import UserError

Json = dict[str, Any]
INVALID = "invalid_request_error"
MAX_QUOTED_CHARS = 80


class ApiError(Exception):
    """An error reply; `outcome` is its label in the metrics."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,
        code: str | None = None,
        outcome: str = "invalid",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.outcome, self.headers = status, outcome, dict(headers or {})
        self.body: Json = {"error": {"message": message, "type": type, "param": None, "code": code}}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What the service uses of a request."""

    question: str
    stream: bool = False
    include_usage: bool = False
    budget: Budget | None = None
    seed: int = 0


def read_request(body: bytes, *, model: str, max_chars: int) -> ChatRequest:
    """Read a request for `model`. The last user message is the problem; other messages are ignored. Raises ApiError."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not JSON") from None
    if not isinstance(content, dict):
        raise ApiError(400, "the body is not a JSON object")
    if (wanted := content.get("model", model)) != model:
        raise ApiError(404, f"no model {_quoted(str(wanted))!r} here; use {model!r}", code="model_not_found")
    if content.get("n") not in (None, 1):
        raise ApiError(400, "n: must be 1; the field rstar of the reply has the runner-up")
    options = content.get("stream_options")
    return ChatRequest(
        question=_question(content.get("messages"), max_chars),
        stream=_typed(content, "stream", bool, False),
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        budget=_budget(content),
        seed=_typed(content, "seed", int, 0),
    )


def _question(messages: object, max_chars: int) -> str:
    if not isinstance(messages, list):
        raise ApiError(400, "messages: expected a list of messages")
    users = [message for message in messages if isinstance(message, dict) and message.get("role") == "user"]
    if not users:
        raise ApiError(400, "messages: there is no user message")
    question = _text(users[-1].get("content")).strip()
    if not question:
        raise ApiError(400, "messages: the last user message is empty")
    if len(question) > max_chars:
        message = f"the problem has {len(question)} characters; at most {max_chars} are allowed"
        raise ApiError(400, message, code="context_length_exceeded")
    if any("\ud800" <= character <= "\udfff" for character in question):
        raise ApiError(400, "messages: the text is not valid Unicode (a lone surrogate)")
    return question


def _text(content: object) -> str:
    """Return the text of a message, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        if all(isinstance(part, str) for part in parts):
            return "\n".join(map(str, parts))
    raise ApiError(400, "messages: only text is supported; expected a string, or parts of type text")


def _typed(content: Json, name: str, kind: type, default: Any) -> Any:
    value = content.get(name)
    if value is None:
        return default
    if type(value) is not kind:
        raise ApiError(400, f"{name}: expected {'true or false' if kind is bool else 'a whole number'}")
    return value


def _budget(content: Json) -> Budget | None:
    """Return the request's limits: `budget`, and OpenAI's `max_completion_tokens`, a limit of all generated tokens."""
    budget, tokens = content.get("budget"), _typed(content, "max_completion_tokens", int, None)
    if budget is not None and type(budget) not in (str, int):
        raise ApiError(400, "budget: expected a whole number, or a text such as '16', '20000t' or '30s'")
    if tokens is not None and tokens < 1:
        raise ApiError(400, "max_completion_tokens: expected at least 1")
    try:
        limits = [Budget.read(_quoted(str(budget).strip()))] if budget is not None else []
    except UserError as error:
        raise ApiError(400, str(error)) from None
    limits += [Budget(tokens=tokens)] if tokens is not None else []
    return limits[0].within(limits[-1]) if limits else None


def _quoted(text: str) -> str:
    """Return a text short enough for an error message. A shortened one ends with "…", so it is never a valid budget."""
    return text if len(text) <= MAX_QUOTED_CHARS else text[: MAX_QUOTED_CHARS - 1] + "…"


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to one request, as one object or as the chunks of a stream."""

    model: str
    domain: Domain
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, solution: Solution, *, timed_out: bool) -> Json:
        message = {"role": "assistant", "content": self._content(solution), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(solution)}
        fields = {"rstar": rstar_field(solution, timed_out=timed_out), "usage": usage(solution)}
        return self._head("chat.completion") | {"choices": [choice]} | fields

    def first_chunk(self) -> Json:
        return self._chunk({"role": "assistant", "content": ""})

    def progress_chunk(self, best: ScoredTrajectory, *, num_rollouts: int, num_tokens: int) -> Json:
        text = f"best so far: {best.answer} (PPM score {best.score:.3f}, {num_tokens} tokens)\n"
        fields = {"answer": best.answer, "score": best.score, "rollouts": num_rollouts, "tokens": num_tokens}
        return self._chunk({"reasoning_content": text}) | {"rstar": fields}

    def last_chunks(self, solution: Solution, *, timed_out: bool, include_usage: bool) -> Iterator[Json]:
        for line in self._content(solution).splitlines(keepends=True):
            yield self._chunk({"content": line})
        yield self._chunk({}, finish_reason(solution)) | {"rstar": rstar_field(solution, timed_out=timed_out)}
        if include_usage:
            yield self._head("chat.completion.chunk") | {"choices": [], "usage": usage(solution)}

    def _content(self, solution: Solution) -> str:
        return markdown(solution.best.steps, self.domain) if solution.best else ""

    def _chunk(self, delta: Json, finish_reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._head("chat.completion.chunk") | {"choices": [choice]}

    def _head(self, kind: str) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def finish_reason(solution: Solution) -> str:
    """Return `length` if the budget ended the search before any answer."""
    return "length" if solution.best is None and solution.ending is Ending.BUDGET else "stop"


def rstar_field(solution: Solution, *, timed_out: bool) -> Json:
    steps = list(solution.best.steps) if solution.best else []
    return summary(solution) | {"timed_out": timed_out, "steps": steps}


def usage(solution: Solution) -> Json:
    """Count the question's prompt once, and all generated tokens except those of expansions that were cancelled."""
    prompt, generated = solution.prompt_tokens, solution.num_tokens
    return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}


def event(content: Json) -> bytes:
    """Return a server-sent event."""
    return b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": thinking\n\n"
