"""A set of replicas of one served model behind one `post`: nothing is lost while any of them lives or comes back.

A key (a question: all requests of its tree) keeps to one replica, where the KV cache of its prefixes lies, chosen by
rendezvous hashing: when a replica dies, its keys move and no others do. A failed replica is left alone for a while that
doubles with every failure; then one request tries it, and the others follow if it answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx

from rstar.protocols import InfrastructureError, UserError

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 15.0
CONNECT_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 1.0  # between two looks at replicas that are all away
NO_ENTRY, KEY_HINT = (401, 403), "; its key goes into OPENAI_API_KEY, which engine.kind = openai sends"
REQUEST_TIMEOUT, TOO_MANY_REQUESTS, INTERNAL_ERROR = 408, 429, 500
MOST_BREAKS = 6  # of one request
ALIVE = "/v1/models"
KEPT_SECONDS = 2.0  # a connection; servers drop idle ones after five, and one dropped while in use looks like a failure


class _Failed(Exception):
    """An attempt that may be repeated; `away`: its replica is better left alone for a while.

    `broke`: the server took the request and broke on it, which it may do again and again.
    """

    def __init__(self, reason: str, *, away: bool, broke: bool = False, pause_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.away = away
        self.broke = broke
        self.pause_seconds = pause_seconds


class SharedFailure(Exception):
    """A request of several callers was refused, or the server broke on it: alone they find out whose it is."""


@dataclass(slots=True)
class _Replica:
    url: str
    room: asyncio.Semaphore
    session: aiohttp.ClientSession
    num_failures: int = 0  # since it last answered
    away_until: float = 0.0  # monotonic seconds
    num_answers: int = 0
    tried: bool = False  # a request is finding out whether it is back

    def here(self) -> bool:
        return time.monotonic() >= self.away_until

    def rank(self, key: str) -> bytes:
        return hashlib.blake2b(f"{self.url} {key}".encode("utf-8", "replace"), digest_size=8).digest()

    def failed(self, num_failures: int) -> None:
        """An attempt failed that began after `num_failures`: those that were under way together count once."""
        if self.num_failures > num_failures:
            return
        self.num_failures += 1
        self.away_until = time.monotonic() + _pause(self.num_failures)

    def lend(self) -> None:
        """Leave it to one request to find out whether it is back."""
        self.tried = True
        self.away_until = time.monotonic() + _pause(self.num_failures)

    def answered(self) -> None:
        self.num_failures, self.away_until = 0, 0.0
        self.num_answers += 1


@dataclass(slots=True)
class Replicas:
    """`async with` it. `urls` end before the path: `http://host:8000`, also where a trailing `/v1` was given.

    At most `max_in_flight` requests a replica; an answer that takes longer than `timeout_seconds` is a failure.
    Connection errors, time-outs, 429 and 5xx are tried again for `patience_seconds`, then `error` is raised, as it is
    when servers that answer others broke on a request MOST_BREAKS times. Any other refusal is a UserError at once,
    because it would be refused again.
    """

    urls: Sequence[str]
    error: type[InfrastructureError]
    max_in_flight: int = 64
    timeout_seconds: float = 600.0
    patience_seconds: float = 900.0
    api_key: str = ""
    num_retries: int = 0
    last_failure: str = ""  # why `models` got no answer
    busy_seconds: float = 0.0  # in which at least one request was under way
    _num_asking: int = 0
    _asking_since: float = 0.0  # monotonic seconds
    _replicas: list[_Replica] = field(default_factory=list)
    _sessions: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        self._replicas = []
        for url in map(base_url, self.urls):
            session = await self._sessions.enter_async_context(_session(url, self.api_key))
            self._replicas.append(_Replica(url, asyncio.Semaphore(self.max_in_flight), session))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._sessions.aclose()

    async def post(self, path: str, body: dict[str, Any], key: str, *, shared: bool = False) -> dict[str, Any]:
        """Return the JSON object that the key's replica answers to `body`, posted at `path`.

        `shared`, by several callers: a refusal and a server that breaks on it are a SharedFailure at once.
        """
        if not self._num_asking:
            self._asking_since = time.monotonic()
        self._num_asking += 1
        try:
            return await self._post(path, body, key, shared)
        finally:
            self._num_asking -= 1
            if not self._num_asking:
                self.busy_seconds += time.monotonic() - self._asking_since

    async def _post(self, path: str, body: dict[str, Any], key: str, shared: bool) -> dict[str, Any]:
        since, num_attempts, num_breaks = 0.0, 0, 0  # since when nothing came of it, monotonic seconds
        failed_here: set[str] = set()
        answered_first: dict[str, int] = {}  # how many answers a replica had given when it was first asked
        while True:
            replica = self._here(key, failed_here)
            if replica is None:
                since = since or time.monotonic()
                self._check_patience(since, f"{', '.join(self.urls)}: no replica answers")
                await asyncio.sleep(self._until_next())
                continue
            try:
                async with replica.room:
                    if not replica.here():
                        continue  # it failed while this request stood in line
                    if replica.num_failures:
                        replica.lend()  # the others wait for this one
                    num_attempts, num_failures = num_attempts + 1, replica.num_failures
                    answered = answered_first.setdefault(replica.url, replica.num_answers)
                    try:
                        answer = await self._ask(replica, path, body)
                    finally:
                        replica.tried = False
            except UserError as refused:
                raise SharedFailure(str(refused)) if shared else refused from None
            except _Failed as failed:
                since = since or time.monotonic()
                self.num_retries += 1
                if failed.away:
                    replica.failed(num_failures)
                    failed_here.add(replica.url)
                if shared and failed.broke:
                    raise SharedFailure(str(failed)) from None
                num_breaks += failed.broke
                if num_breaks >= MOST_BREAKS and replica.num_answers > answered:  # to others, so it is not away
                    raise self.error(f"{replica.url}{path}: {failed}; given up after {num_attempts} attempts") from None
                self._check_patience(since, f"{replica.url}{path}: {failed} ({num_attempts} attempts)")
                await asyncio.sleep(failed.pause_seconds or _pause(num_attempts, longest=LONGEST_WAIT_SECONDS))
            else:
                replica.answered()
                return answer

    async def models(self) -> dict[str, list[dict[str, Any]]]:
        """Ask each replica that answers which models it serves, by url; the others are left alone for now."""
        served = {}
        for replica in self._replicas:
            try:
                answer = await self._ask(replica, ALIVE)
            except _Failed as failed:
                self.last_failure = str(failed)
                replica.failed(replica.num_failures)
            else:
                served[replica.url] = list(answer.get("data") or [])
        return served

    def home(self, key: str) -> str:
        """The url of the replica to which a request with `key` would go now; while all are away, of its first."""
        here = self._here(key) or min(self._replicas, key=lambda replica: replica.rank(key))
        return here.url

    def answers(self) -> dict[str, int]:
        """Count the answers of each replica, by url."""
        return {replica.url: replica.num_answers for replica in self._replicas}

    def _here(self, key: str, failed: Collection[str] = ()) -> _Replica | None:
        """The key's replica among those that are not left alone.

        Rather one that has not failed this request, and none of which another request is finding out if it is back.
        """
        here = [replica for replica in self._replicas if replica.here()]
        return min(here, key=lambda replica: (replica.tried or replica.url in failed, replica.rank(key)), default=None)

    def _until_next(self) -> float:
        """Seconds, with jitter, until a replica may be tried again, or another request's try may have ended."""
        soonest = min(replica.away_until for replica in self._replicas) - time.monotonic()
        return min(max(soonest, 0.01), LONGEST_WAIT_SECONDS) * random.uniform(1.0, 1.2)

    def _check_patience(self, since: float, reason: str) -> None:
        if time.monotonic() - since >= self.patience_seconds:
            raise self.error(f"{reason}; given up after {self.patience_seconds:g} s")

    async def _ask(self, replica: _Replica, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        method, seconds = ("GET", CONNECT_SECONDS) if body is None else ("POST", self.timeout_seconds)
        url = replica.url + path
        try:
            request = replica.session.request(method, url, json=body, allow_redirects=False)
            async with asyncio.timeout(seconds), request as response:
                told = await response.read()
        except (ValueError, aiohttp.NonHttpUrlClientError) as error:
            raise UserError(
                f"{replica.url}: not an address ({error}); give one such as http://127.0.0.1:8000"
            ) from None
        except aiohttp.ClientError as error:
            raise _Failed(f"{type(error).__name__}: {_one_line(str(error))}", away=True) from error
        except TimeoutError:
            raise _Failed(f"no answer in {seconds:g} s", away=True) from None
        if 300 <= response.status < 400:
            place = response.headers.get("location", "another address")
            raise UserError(f"{url} redirects to {place}, which is not followed; give the server's own address")
        if response.status == REQUEST_TIMEOUT:
            raise _Failed("408, the request timed out", away=False)
        if response.status == TOO_MANY_REQUESTS:
            raise _Failed("429, too many requests", away=False, pause_seconds=_retry_after(response))
        if response.status >= 500:
            broke = response.status == INTERNAL_ERROR
            raise _Failed(f"{response.status}, {_reason(told)}", away=True, broke=broke)
        if response.status != 200:
            hint = KEY_HINT if response.status in NO_ENTRY else ""
            raise UserError(f"{url} refused the request: {response.status}, {_reason(told)}{hint}")
        answer = _parsed(told)
        if not isinstance(answer, dict):
            raise _Failed(f"not a JSON object: {_reason(told)}", away=True)
        return answer


def _session(url: str, api_key: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=KEPT_SECONDS,
            ssl=httpx.create_ssl_context() if url.startswith("https:") else True,  # certifi's, or SSL_CERT_FILE
        ),
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS),
        headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
        proxy=proxy_for(url),
    )


def proxy_for(url: str) -> str | None:
    """The proxy that the environment (HTTP_PROXY, NO_PROXY and so on) wants for an address; never for this machine."""
    try:
        scheme, host = urlsplit(url).scheme, urlsplit(url).hostname or ""
    except ValueError:
        return None  # not an address: the request will say so
    if host in ("127.0.0.1", "localhost", "::1") or proxy_bypass(host):
        return None
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def base_url(url: str) -> str:
    return url.rstrip("/").removesuffix("/v1")


def _pause(num_failures: int, *, longest: float = LONGEST_PAUSE_SECONDS) -> float:
    """Seconds, with jitter, before the next attempt."""
    return min(FIRST_PAUSE_SECONDS * 2 ** min(num_failures - 1, 20), longest) * random.uniform(0.8, 1.2)


def _retry_after(response: aiohttp.ClientResponse) -> float:
    text = response.headers.get("retry-after", "")
    return min(float(text), LONGEST_PAUSE_SECONDS) if text.isdigit() else 0.0


def _parsed(told: bytes) -> Any:
    """What JSON says, None where it is none."""
    try:
        return json.loads(told)
    except ValueError:
        return None


def _reason(told: bytes) -> str:
    """The server's own words, on one line."""
    body = _parsed(told)
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        error = error.get("message", error)
    text = told.decode("utf-8", "replace") if error is None else str(error)
    return _one_line(text)[:300] or "no reason given"


def _one_line(text: str) -> str:
    return " ".join(text.split())
