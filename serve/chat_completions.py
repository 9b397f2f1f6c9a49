"""OpenAI's format of chat completions: requests read, replies, chunks and errors written. No I/O.

What is beyond it: a request may say `budget` ("16", "20000t", "30s"), replies carry `rstar` (score, runner-up, votes,
cost, the rendered steps), and while the search goes on a stream tells of better trajectories as `reasoning_content`.
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
from rstar.inference.solving import Budget, Ending, Solution
from rstar.inference.thinking import ScoredTrajectory
from rstar.protocols import UserError

Json = dict[str, Any]
INVALID = "invalid_request_error"
MAX_ECHO_CHARS = 80


class Refusal(Exception):
    """A request that gets an error for an answer; `outcome` is the name under which it is counted."""

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
class Asked:
    """A request as the service understands it."""

    question: str
    stream: bool = False
    include_usage: bool = False
    budget: Budget | None = None
    seed: int = 0


def read_request(body: bytes, *, model: str, max_chars: int) -> Asked:
    """Read a request for `model`; raises Refusal. The last user message is the problem, the others are not read."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON") from None
    if not isinstance(content, dict):
        raise Refusal(400, "the body is not a JSON object")
    if (asked := content.get("model", model)) != model:
        raise Refusal(404, f"the model {_short(str(asked))!r} is not here; this is {model!r}", code="model_not_found")
    if content.get("n") not in (None, 1):
        raise Refusal(400, "n: one choice is given; the runner-up is in the field rstar")
    options = content.get("stream_options")
    return Asked(
        question=_question(content.get("messages"), max_chars),
        stream=_typed(content, "stream", bool, False),
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        budget=_budget(content),
        seed=_typed(content, "seed", int, 0),
    )


def _question(messages: object, max_chars: int) -> str:
    if not isinstance(messages, list):
        raise Refusal(400, "messages: expected a list of messages")
    users = [message for message in messages if isinstance(message, dict) and message.get("role") == "user"]
    if not users:
        raise Refusal(400, "messages: there is no user message")
    question = _text(users[-1].get("content")).strip()
    if not question:
        raise Refusal(400, "messages: the last user message is empty")
    if len(question) > max_chars:
        words = f"the problem has {len(question)} characters, more than the {max_chars} that are read"
        raise Refusal(400, words, code="context_length_exceeded")
    if any("\ud800" <= character <= "\udfff" for character in question):
        raise Refusal(400, "messages: the text is not valid Unicode (a lone surrogate)")
    return question


def _text(content: object) -> str:
    """The text of a message, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        if all(isinstance(part, str) for part in parts):
            return "\n".join(map(str, parts))
    raise Refusal(400, "messages: only text is read; expected a string, or parts of type text")


def _typed(content: Json, name: str, kind: type, default: Any) -> Any:
    value = content.get(name)
    if value is None:
        return default
    if type(value) is not kind:
        raise Refusal(400, f"{name}: expected {'true or false' if kind is bool else 'a whole number'}")
    return value


def _budget(content: Json) -> Budget | None:
    """The request's own limits: `budget`, and OpenAI's bound on all generated tokens, hidden ones included."""
    budget, tokens = content.get("budget"), _typed(content, "max_completion_tokens", int, None)
    if budget is not None and type(budget) not in (str, int):
        raise Refusal(400, "budget: expected a text, such as '16', '20000t' or '30s', or a whole number")
    if tokens is not None and tokens < 1:
        raise Refusal(400, "max_completion_tokens: expected a number more than 0")
    try:
        limits = [Budget.read(_short(str(budget).strip()))] if budget is not None else []
    except UserError as error:
        raise Refusal(400, str(error)) from None
    limits += [Budget(tokens=tokens)] if tokens is not None else []
    return limits[0].within(limits[-1]) if limits else None


def _short(text: str) -> str:
    """The text as a message may repeat it; what is cut is marked, and so no budget."""
    return text if len(text) <= MAX_ECHO_CHARS else text[: MAX_ECHO_CHARS - 1] + "…"


@dataclass(frozen=True, slots=True)
class Reply:
    """What one request is answered with, whole or in chunks."""

    model: str
    domain: Domain
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, solution: Solution, *, timed_out: bool) -> Json:
        message = {"role": "assistant", "content": self.content(solution), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(solution)}
        told = {"rstar": extra(solution, timed_out=timed_out), "usage": usage(solution)}
        return self._head("chat.completion") | {"choices": [choice]} | told

    def content(self, solution: Solution) -> str:
        return markdown(solution.best.steps, self.domain) if solution.best else ""

    def first(self) -> Json:
        return self._chunk({"role": "assistant", "content": ""})

    def better(self, trajectory: ScoredTrajectory, *, num_rollouts: int, num_tokens: int) -> Json:
        words = f"best so far: {trajectory.answer} (PPM score {trajectory.score:.3f}, {num_tokens} tokens)\n"
        told = {"answer": trajectory.answer, "score": trajectory.score, "rollouts": num_rollouts, "tokens": num_tokens}
        return self._chunk({"reasoning_content": words}) | {"rstar": told}

    def rest(self, solution: Solution, *, timed_out: bool, include_usage: bool) -> Iterator[Json]:
        for line in self.content(solution).splitlines(keepends=True):
            yield self._chunk({"content": line})
        yield self._chunk({}, finish_reason(solution)) | {"rstar": extra(solution, timed_out=timed_out)}
        if include_usage:
            yield self._head("chat.completion.chunk") | {"choices": [], "usage": usage(solution)}

    def _chunk(self, delta: Json, finish_reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._head("chat.completion.chunk") | {"choices": [choice]}

    def _head(self, kind: str) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def finish_reason(solution: Solution) -> str:
    """Tell `length` where the budget ended without an answer."""
    return "length" if solution.best is None and solution.ending is Ending.BUDGET else "stop"


def extra(solution: Solution, *, timed_out: bool) -> Json:
    steps = list(solution.best.steps) if solution.best else []
    return summary(solution) | {"timed_out": timed_out, "steps": steps}


def usage(solution: Solution) -> Json:
    """Count the question's prompt once, and the tokens that the search generated, but for expansions cut off."""
    prompt, generated = solution.prompt_tokens, solution.num_tokens
    return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}


def event(content: Json) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": thinking\n\n"
