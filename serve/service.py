"""`rstar serve`: deep thinking over HTTP, in the form of OpenAI's chat completions (serve/chat_completions.py).

A request is one search; at most so many go on at once, and their steps share the engines' batches. A search ends with
its budget, its time-out, its client, or the service; all but the client's going leave the best so far as the answer.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rstar.inference.solving import Budget, Ending, Solution, Solving
from rstar.inference.thinking import ScoredTrajectory
from rstar.protocols import InfrastructureError, UserError
from rstar.search import SearchSettings
from sandbox.fair import sharing
from serve.chat_completions import DONE, KEEP_ALIVE, Asked, Refusal, Reply, event, read_request
from tasks.lib.engines import Engines

log = logging.getLogger(__name__)
disable_created_metrics()  # a time stamp a series, which nobody asks for
BODY_SECONDS = 10.0  # for a body to arrive
KEEP_ALIVE_SECONDS = 10.0
OUTCOMES = ("answered", "unanswered", "timed_out", "invalid", "refused", "cancelled", "failed")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take from the others."""

    max_in_flight: int = 8
    timeout_seconds: float = 60.0
    max_body_bytes: int = 256 * 1024
    max_problem_chars: int = 16_000


@dataclass(eq=False, slots=True)
class Job:
    """A request's search under way; `task` gives its solution, or why it gets none."""

    asked: Asked
    solving: Solving
    news: asyncio.Queue[ScoredTrajectory | None]
    task: asyncio.Task[Solution | Refusal] = field(init=False)
    gone: bool = False  # the client


class Metrics:
    """What Prometheus is told; a registry of its own, so that two services in one process do not mix."""

    def __init__(self, num_in_flight: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        self._requests = counter("rstar_requests", "Chat completions, by what became of them.", ["outcome"])
        self._tokens = counter("rstar_generated_tokens", "Tokens of all candidates.")
        self._searches = counter("rstar_searches", "Searches that ended.")
        self._seconds = counter("rstar_search_seconds", "Wall-clock time of searches.")
        in_flight = Gauge("rstar_requests_in_flight", "Searches that run now.", registry=self.registry)
        in_flight.set_function(num_in_flight)
        for outcome in OUTCOMES:
            self._requests.labels(outcome)
        self.mean_seconds = 1.0  # of a search; a guess before the first has ended
        self._num_ended = 0

    def count(self, outcome: str) -> None:
        self._requests.labels(outcome).inc()

    def ended(self, solving: Solving) -> None:
        self._searches.inc()
        self._tokens.inc(solving.num_tokens)
        self._seconds.inc(solving.seconds)
        self._num_ended += 1
        first = self._num_ended == 1
        self.mean_seconds = (
            solving.seconds if first else (self.mean_seconds + (solving.seconds - self.mean_seconds) / self._num_ended)
        )


class Service:
    """The application of one pair of models; `stop()` lets it answer what it has and take no more."""

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
        self._closing = False
        self._metrics = Metrics(lambda: len(self._jobs))
        self._started = int(time.time())

    def app(self) -> Starlette:
        routes = [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
        ]
        return Starlette(routes=routes, exception_handlers={Refusal: _refused, HTTPException: _http_error})

    def stop(self) -> None:
        self._closing = True
        for job in self._jobs:
            job.solving.stop()

    async def close(self, timeout_seconds: float) -> None:
        """Stop, and wait for the searches under way: they use the engines until they have ended."""
        self.stop()
        if self._jobs:
            await asyncio.wait({job.task for job in self._jobs}, timeout=timeout_seconds)

    async def models(self, request: Request) -> Response:
        model = {"id": self.model, "object": "model", "created": self._started, "owned_by": "rstar"}
        return JSONResponse({"object": "list", "data": [model]})

    async def health(self, request: Request) -> Response:
        status = {"status": "stopping" if self._closing else "ok", "model": self.model, "in_flight": len(self._jobs)}
        return JSONResponse(status, status_code=503 if self._closing else 200)

    async def metrics(self, request: Request) -> Response:
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def chat(self, request: Request) -> Response:
        try:
            self._check_room()  # also before the body is read: what is refused anyway costs no memory
            body = await self._body(request)
            asked = read_request(body, model=self.model, max_chars=self.limits.max_problem_chars)
            job = self._start(asked)
        except Refusal as refusal:
            self._metrics.count(refusal.outcome)
            raise
        watching = asyncio.create_task(_watch(request, job))
        job.task.add_done_callback(lambda _: watching.cancel())
        reply = Reply(self.model, self._engines.domain)
        if asked.stream:
            headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
            return StreamingResponse(self._events(job, reply), media_type="text/event-stream", headers=headers)
        result = await job.task
        if isinstance(result, Refusal):
            raise result
        return JSONResponse(reply.whole(result, timed_out=self._timed_out(job, result)))

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in request.stream():
                    body += part
                    if len(body) > self.limits.max_body_bytes:
                        raise Refusal(413, f"the body is longer than {self.limits.max_body_bytes} bytes")
        except TimeoutError:
            raise Refusal(408, f"the body did not arrive within {BODY_SECONDS:g} seconds") from None
        except ClientDisconnect:
            raise Refusal(400, "the client went away", outcome="cancelled") from None
        return bytes(body)

    def _start(self, asked: Asked) -> Job:
        """Start a search, or refuse it."""
        self._check_room()
        news: asyncio.Queue[ScoredTrajectory | None] = asyncio.Queue()
        solving = Solving(
            asked.question,
            **self._engines.for_search(),
            settings=self._settings,
            budget=(asked.budget or self.budget).within(Budget(seconds=self.limits.timeout_seconds)),
            seed=asked.seed,
            top_k=self._top_k,
            on_better=news.put_nowait,
        )
        job = Job(asked, solving, news)
        self._jobs.add(job)
        job.task = asyncio.create_task(self._work(job))
        return job

    def _check_room(self) -> None:
        if self._closing:
            raise Refusal(503, "the service is stopping", type="server_error", outcome="refused")
        if len(self._jobs) >= self.limits.max_in_flight:
            words = f"{len(self._jobs)} searches are in flight, as many as there may be; try again later"
            headers = {"retry-after": str(self._retry_after())}
            raise Refusal(429, words, type="rate_limit_error", code="too_many", outcome="refused", headers=headers)

    async def _work(self, job: Job) -> Solution | Refusal:
        sharing.set(object())  # a job's steps take turns with those of others
        result = Refusal(500, "the search ended unexpectedly", type="server_error", outcome="failed")
        try:
            solution = await job.solving.run()
            refusal = self._refusal(job, solution)
            self._metrics.count(refusal.outcome if refusal else "answered" if solution.best else "unanswered")
            return refusal or solution
        except UserError as error:  # the request itself was read before: an engine refuses it, or its key
            log.error("%s: %s", type(error).__name__, error)
            words = "an engine refused the search; the service's log says why"
            result = Refusal(502, words, type="server_error", outcome="failed")
        except InfrastructureError as error:
            result = _failed(error)
        except Exception:
            log.exception("a search failed")
        finally:
            self._jobs.discard(job)
            self._metrics.ended(job.solving)
            job.news.put_nowait(None)
        self._metrics.count(result.outcome)
        return result

    def _refusal(self, job: Job, solution: Solution) -> Refusal | None:
        """Say why a search that ended has no answer to give; None where it has, or used its budget in vain."""
        if job.gone:
            return Refusal(400, "the client went away", outcome="cancelled")
        if solution.best:
            return None
        if solution.ending is Ending.STOPPED:
            return Refusal(503, "the service stopped before there was an answer", type="server_error", outcome="failed")
        if failure := solution.failure:
            return _failed(failure)
        if self._timed_out(job, solution):
            words = f"no trajectory reached an answer within {self.limits.timeout_seconds:g} seconds"
            return Refusal(504, words, type="timeout_error", outcome="timed_out")
        if solution.prompt_tokens and not solution.num_tokens:
            words = f"the problem has {solution.prompt_tokens} tokens, which leave no room in the model's context"
            return Refusal(400, words, code="context_length_exceeded")
        return None

    def _timed_out(self, job: Job, solution: Solution) -> bool:
        """Whether the service's own limit ended a search, and not the budget."""
        limit, own = self.limits.timeout_seconds, (job.asked.budget or self.budget).seconds
        return solution.ending is Ending.BUDGET and solution.seconds >= limit and (own is None or own > limit)

    async def _events(self, job: Job, reply: Reply) -> AsyncIterator[bytes]:
        yield event(reply.first())
        while True:
            try:
                better = await asyncio.wait_for(job.news.get(), KEEP_ALIVE_SECONDS)
            except TimeoutError:
                yield KEEP_ALIVE
                continue
            if better is None:
                break
            solving = job.solving
            yield event(reply.better(better, num_rollouts=solving.num_rollouts, num_tokens=solving.num_tokens))
        result = await job.task
        if isinstance(result, Refusal):
            yield event(result.body)
        else:
            timed_out = self._timed_out(job, result)
            for chunk in reply.rest(result, timed_out=timed_out, include_usage=job.asked.include_usage):
                yield event(chunk)
        yield DONE

    def _retry_after(self) -> int:
        """A search's mean time so far, in whole seconds."""
        return max(1, math.ceil(min(self._metrics.mean_seconds, self.limits.timeout_seconds)))


async def _watch(request: Request, job: Job) -> None:
    """Stop a search whose client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    if not job.task.done():
        job.gone = True
        job.solving.stop()


def _failed(error: InfrastructureError) -> Refusal:
    log.error("%s: %s", type(error).__name__, error)
    return Refusal(503, f"{type(error).__name__}: {error}", type="server_error", outcome="failed")


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse(Refusal(error.status_code, words).body, status_code=error.status_code, headers=error.headers)
