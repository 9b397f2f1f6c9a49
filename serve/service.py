"""The HTTP service: one search for each chat completion (the format is in serve/chat_completions.py).

A fixed number of searches run at the same time, and their requests share the engines' batches. A search ends with its
budget, with the service's time limit, when the client disconnects, or when the service stops. Except for a client that
disconnects, the best trajectory so far is the answer.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rstar.inference.budget import Budget
from rstar.inference.solution import Ending, Solution
from rstar.inference.solving import Solving
from rstar.inference.thinking import ScoredTrajectory
from rstar.protocols import InfrastructureError, UserError
from rstar.search import SearchSettings
from sandbox.fair import sharing
from serve.chat_completions import DONE, KEEP_ALIVE, ApiError, ChatRequest, Reply, event, read_request
from serve.metrics import Metrics
from tasks.lib.engines import Engines

log = logging.getLogger(__name__)
BODY_SECONDS = 10.0  # for the whole body to arrive
KEEP_ALIVE_SECONDS = 10.0
MAX_BODY_BYTES = 256 * 1024
MAX_PROBLEM_CHARS = 16_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the service, whatever a request's budget is."""

    max_in_flight: int = 8  # searches
    timeout_seconds: float = 60.0  # of one search


@dataclass(eq=False, slots=True)
class Job:
    """The running search of a request; `task` returns its solution or the error to reply with."""

    request: ChatRequest
    solving: Solving
    better: asyncio.Queue[ScoredTrajectory | None]  # each new best trajectory; None at the end
    task: asyncio.Task[Solution | ApiError] = field(init=False)
    disconnected: bool = False


class Service:
    """The web application for one policy and PPM. `stop()` ends the running searches; new requests get status 503."""

    def __init__(
        self,
        model: str,
        engines: Engines,
        settings: SearchSettings,
        *,
        budget: Budget,
        limits: Limits | None = None,
        top_k: int | None = None,
    ) -> None:
        self.model, self.limits, self.budget = model, limits or Limits(), budget
        self._engines, self._settings, self._top_k = engines, settings, top_k
        self._jobs: set[Job] = set()
        self._stopping = False
        self._metrics = Metrics(lambda: len(self._jobs))
        self._started = int(time.time())

    def app(self) -> Starlette:
        routes = [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
        ]
        return Starlette(routes=routes, exception_handlers={ApiError: _api_error, HTTPException: _http_error})

    def stop(self) -> None:
        self._stopping = True
        for job in self._jobs:
            job.solving.stop()

    async def close(self, timeout_seconds: float) -> None:
        """Stop, and wait until the searches have ended: they use the engines until then."""
        self.stop()
        if self._jobs:
            await asyncio.wait({job.task for job in self._jobs}, timeout=timeout_seconds)

    async def models(self, request: Request) -> Response:
        model = {"id": self.model, "object": "model", "created": self._started, "owned_by": "rstar"}
        return JSONResponse({"object": "list", "data": [model]})

    async def health(self, request: Request) -> Response:
        status = {"status": "stopping" if self._stopping else "ok", "model": self.model, "in_flight": len(self._jobs)}
        return JSONResponse(status, status_code=503 if self._stopping else 200)

    async def metrics(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def chat(self, request: Request) -> Response:
        try:
            self._check_capacity()  # before the body uses memory
            body = await _read_body(request)
            job = self._start(read_request(body, model=self.model, max_chars=MAX_PROBLEM_CHARS))
        except ApiError as error:
            self._metrics.count(error.outcome)
            raise
        watching = asyncio.create_task(_stop_if_disconnected(request, job))
        job.task.add_done_callback(lambda _: watching.cancel())
        reply = Reply(self.model, self._engines.domain)
        if job.request.stream:
            headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
            return StreamingResponse(self._events(job, reply), media_type="text/event-stream", headers=headers)
        result = await job.task
        if isinstance(result, ApiError):
            raise result
        return JSONResponse(reply.completion(result, timed_out=self._timed_out(job, result)))

    def _start(self, request: ChatRequest) -> Job:
        """Start a search. Raises ApiError if there is no capacity for it."""
        self._check_capacity()  # again: reading the body took time
        better: asyncio.Queue[ScoredTrajectory | None] = asyncio.Queue()
        solving = Solving(
            request.question,
            **self._engines.for_search(),
            settings=self._settings,
            budget=(request.budget or self.budget).within(Budget(seconds=self.limits.timeout_seconds)),
            seed=request.seed,
            top_k=self._top_k,
            on_better=better.put_nowait,
        )
        job = Job(request, solving, better)
        self._jobs.add(job)
        job.task = asyncio.create_task(self._search(job))
        return job

    def _check_capacity(self) -> None:
        if self._stopping:
            raise ApiError(503, "the service is stopping", type="server_error", outcome="refused")
        if len(self._jobs) >= self.limits.max_in_flight:
            message = f"{len(self._jobs)} searches are running, which is the limit; try again later"
            seconds = max(1, math.ceil(min(self._metrics.mean_seconds, self.limits.timeout_seconds)))
            raise ApiError(
                429, message, type="rate_limit_error", code="too_many", outcome="refused",
                headers={"retry-after": str(seconds)},
            )  # fmt: skip

    async def _search(self, job: Job) -> Solution | ApiError:
        sharing.set(object())  # the sandbox takes the steps of different jobs in turn
        result = ApiError(500, "the search failed unexpectedly", type="server_error", outcome="failed")
        try:
            solution = await job.solving.run()
            failure = self._failure(job, solution)
            self._metrics.count(failure.outcome if failure else "answered" if solution.best else "unanswered")
            return failure or solution
        except UserError as error:  # not the client's mistake: an engine rejects the search, or the service's API key
            log.error("%s: %s", type(error).__name__, error)
            message = "an engine rejected the search; see the log of the service"
            result = ApiError(502, message, type="server_error", outcome="failed")
        except InfrastructureError as error:
            result = _engine_failed(error)
        except Exception:
            log.exception("a search failed")
        finally:
            self._jobs.discard(job)
            self._metrics.add_search(job.solving)
            job.better.put_nowait(None)
        self._metrics.count(result.outcome)
        return result

    def _failure(self, job: Job, solution: Solution) -> ApiError | None:
        """Return why a finished search has no answer; None if it has one, or if it used up its budget."""
        if job.disconnected:
            return ApiError(400, "the client disconnected", outcome="cancelled")
        if solution.best:
            return None
        if solution.ending is Ending.STOPPED:
            return ApiError(
                503, "the service stopped before there was an answer", type="server_error", outcome="failed"
            )
        if failure := solution.failure:
            return _engine_failed(failure)
        if self._timed_out(job, solution):
            message = f"no trajectory reached an answer within {self.limits.timeout_seconds:g} seconds"
            return ApiError(504, message, type="timeout_error", outcome="timed_out")
        if solution.prompt_tokens and not solution.num_tokens:
            message = f"the problem has {solution.prompt_tokens} tokens, which leave no room in the model's context"
            return ApiError(400, message, code="context_length_exceeded")
        return None

    def _timed_out(self, job: Job, solution: Solution) -> bool:
        """Whether the service's time limit ended the search, and not its budget."""
        limit, own = self.limits.timeout_seconds, (job.request.budget or self.budget).seconds
        return solution.ending is Ending.BUDGET and solution.seconds >= limit and (own is None or own > limit)

    async def _events(self, job: Job, reply: Reply) -> AsyncIterator[bytes]:
        yield event(reply.first_chunk())
        while True:
            try:
                best = await asyncio.wait_for(job.better.get(), KEEP_ALIVE_SECONDS)
            except TimeoutError:
                yield KEEP_ALIVE
                continue
            if best is None:
                break
            num_rollouts, num_tokens = job.solving.num_rollouts, job.solving.num_tokens
            yield event(reply.progress_chunk(best, num_rollouts=num_rollouts, num_tokens=num_tokens))
        result = await job.task
        if isinstance(result, ApiError):
            yield event(result.body)
        else:
            timed_out = self._timed_out(job, result)
            for chunk in reply.last_chunks(result, timed_out=timed_out, include_usage=job.request.include_usage):
                yield event(chunk)
        yield DONE


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BODY_BYTES:
                    raise ApiError(413, f"the body is longer than {MAX_BODY_BYTES} bytes")
    except TimeoutError:
        raise ApiError(408, f"the body did not arrive within {BODY_SECONDS:g} seconds") from None
    except ClientDisconnect:
        raise ApiError(400, "the client disconnected", outcome="cancelled") from None
    return bytes(body)


async def _stop_if_disconnected(request: Request, job: Job) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    if not job.task.done():
        job.disconnected = True
        job.solving.stop()


def _engine_failed(error: InfrastructureError) -> ApiError:
    log.error("%s: %s", type(error).__name__, error)
    return ApiError(503, f"{type(error).__name__}: {error}", type="server_error", outcome="failed")


def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}").body
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)
