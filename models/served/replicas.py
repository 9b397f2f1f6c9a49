"""The replicas of a served model behind one `post`. No request is lost as long as one of them lives or comes back.

All requests with the same key (a question: the requests of its tree) go to one replica, whose KV cache has their
prefixes. Rendezvous hashing chooses it, so when a replica fails, only its own keys move. A failed replica gets no
requests for a while, and for twice as long after each further failure; then one request tries it, and the others follow
if it answers.

A retry library such as tenacity repeats one call. Here an attempt chooses its replica anew, failures count for the
replica and for the request, and requests also wait while no replica is available.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self

from models.served.replica import AttemptFailed, Replica, backoff_seconds, open_session
from rstar.protocols import InfrastructureError, UserError

LONGEST_WAIT_SECONDS = 1.0  # between two attempts of a request, or two looks at replicas that are all away
MAX_BREAKS = 6  # of one request
MODELS_PATH = "/v1/models"


class SharedFailure(Exception):
    """A shared request was refused, or the server broke on it. Sent alone, its parts show which of them is at fault."""


@dataclass(slots=True)
class _Request:
    """A request and the history of its attempts."""

    path: str
    body: dict[str, Any]
    key: str
    shared: bool
    failing_since: float = 0.0  # monotonic seconds; 0: it has not failed yet
    num_attempts: int = 0
    num_breaks: int = 0
    failed_at: set[str] = field(default_factory=set)  # urls
    answers_before: dict[str, int] = field(default_factory=dict)  # of each replica, when this request first came to it


@dataclass(slots=True)
class Replicas:
    """`async with` it. `urls` are addresses such as http://host:8000, with or without `/v1`.

    Each replica gets at most `max_in_flight` requests at once. No answer within `timeout_seconds` is a failure.
    Connection errors, time-outs, 408, 429, 5xx and answers that are not a JSON object are retried. `error` is raised
    when a request has failed for `patience_seconds`, or when MAX_BREAKS of its attempts broke servers that answered
    other requests meanwhile. Any other refusal is a UserError at once, because a retry would be refused again.
    """

    urls: Sequence[str]
    error: type[InfrastructureError]
    max_in_flight: int = 64
    timeout_seconds: float = 600.0
    patience_seconds: float = 900.0
    api_key: str = ""
    num_retries: int = field(default=0, init=False)
    last_failure: str = field(default="", init=False)  # of a replica that did not answer `models`
    busy_seconds: float = field(default=0.0, init=False)  # with at least one request in flight
    _num_in_flight: int = field(default=0, init=False)
    _busy_since: float = field(default=0.0, init=False)  # monotonic seconds
    _replicas: list[Replica] = field(default_factory=list, init=False)
    _sessions: AsyncExitStack = field(default_factory=AsyncExitStack, init=False)

    async def __aenter__(self) -> Self:
        self._replicas = []
        for url in (url.rstrip("/").removesuffix("/v1") for url in self.urls):
            session = await self._sessions.enter_async_context(open_session(url, self.api_key))
            self._replicas.append(Replica(url, session, asyncio.Semaphore(self.max_in_flight)))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._sessions.aclose()

    async def post(self, path: str, body: dict[str, Any], key: str, *, shared: bool = False) -> dict[str, Any]:
        """Post `body` to the key's replica; return the JSON object that it answers.

        If several callers share the request, a refusal or a broken server is a SharedFailure at once.
        """
        if not self._num_in_flight:
            self._busy_since = time.monotonic()
        self._num_in_flight += 1
        try:
            return await self._post(_Request(path, body, key, shared))
        finally:
            self._num_in_flight -= 1
            if not self._num_in_flight:
                self.busy_seconds += time.monotonic() - self._busy_since

    async def models(self) -> dict[str, list[dict[str, Any]]]:
        """Return the models of each replica that answers, by url. The others count as failed."""
        served = {}
        for replica in self._replicas:
            try:
                answer = await replica.ask(MODELS_PATH)
            except AttemptFailed as failure:
                self.last_failure = str(failure)
                replica.failed(replica.num_failures)
            else:
                served[replica.url] = list(answer.get("data") or [])
        return served

    def home(self, key: str) -> str:
        """Return the url of the replica that a request with `key` would go to now, or go to first if all are away."""
        replica = self._choose(key) or min(self._replicas, key=lambda replica: replica.rank(key))
        return replica.url

    async def _post(self, request: _Request) -> dict[str, Any]:
        while True:
            replica = self._choose(request.key, request.failed_at)
            if replica is None:
                self._check_patience(request, f"{', '.join(self.urls)}: no replica answers")
                await asyncio.sleep(self._until_next())
                continue
            try:
                async with replica.slots:
                    if not replica.available():  # it failed while this request waited for a slot
                        continue
                    answer = await self._attempt(replica, request)
            except UserError as refusal:
                raise SharedFailure(str(refusal)) if request.shared else refusal from None
            except AttemptFailed as failure:
                await asyncio.sleep(self._pause_after(failure, replica, request))
            else:
                replica.answered()
                return answer

    def _choose(self, key: str, failed_at: Collection[str] = ()) -> Replica | None:
        """Return the key's replica among those available.

        Prefers one that is not on trial and at which the request has not failed.
        """
        available = [replica for replica in self._replicas if replica.available()]
        return min(available, key=lambda each: (each.on_trial or each.url in failed_at, each.rank(key)), default=None)

    async def _attempt(self, replica: Replica, request: _Request) -> dict[str, Any]:
        if replica.num_failures:
            replica.start_trial()
        request.num_attempts += 1
        request.answers_before.setdefault(replica.url, replica.num_answers)
        num_failures = replica.num_failures
        try:
            return await replica.ask(request.path, request.body, timeout_seconds=self.timeout_seconds)
        except AttemptFailed as failure:
            if failure.away:
                replica.failed(num_failures)
                request.failed_at.add(replica.url)
            raise
        finally:
            replica.on_trial = False

    def _pause_after(self, failure: AttemptFailed, replica: Replica, request: _Request) -> float:
        """Return the seconds until the next attempt. Raises if there is to be none."""
        self.num_retries += 1
        if request.shared and failure.broke:
            raise SharedFailure(str(failure)) from None
        request.num_breaks += failure.broke
        place = f"{replica.url}{request.path}"
        if request.num_breaks >= MAX_BREAKS and replica.num_answers > request.answers_before[replica.url]:
            raise self.error(f"{place}: {failure}; given up after {request.num_attempts} attempts") from None
        self._check_patience(request, f"{place}: {failure} ({request.num_attempts} attempts)")
        return failure.pause_seconds or backoff_seconds(request.num_attempts, longest=LONGEST_WAIT_SECONDS)

    def _check_patience(self, request: _Request, reason: str) -> None:
        request.failing_since = request.failing_since or time.monotonic()
        if time.monotonic() - request.failing_since >= self.patience_seconds:
            raise self.error(f"{reason}; given up after {self.patience_seconds:g} s")

    def _until_next(self) -> float:
        """Return the seconds, with jitter, until a replica becomes available, or until the next look."""
        soonest = min(replica.away_until for replica in self._replicas) - time.monotonic()
        return min(max(soonest, 0.01), LONGEST_WAIT_SECONDS) * random.uniform(1.0, 1.2)
