"""One replica of a served model: its HTTP session, and whether it answers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx

from rstar.protocols import UserError

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 15.0
CONNECT_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 2.0  # servers close idle connections after five, which would look like a failure
REQUEST_TIMEOUT, TOO_MANY_REQUESTS, INTERNAL_ERROR = 408, 429, 500
NO_ENTRY, KEY_HINT = (401, 403), "; its key goes into OPENAI_API_KEY, which engine.kind = openai sends"


class AttemptFailed(Exception):
    """A failure after which the request may be sent again.

    `away`: the replica should be left alone for a while. `broke`: this request may be the cause, and would then make
    the server fail again. `pause_seconds`: the pause that the server asks for; 0 if it names none.
    """

    def __init__(self, reason: str, *, away: bool, broke: bool = False, pause_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.away = away
        self.broke = broke
        self.pause_seconds = pause_seconds


@dataclass(slots=True)
class Replica:
    """A server, its session and the record of its answers and failures."""

    url: str
    session: aiohttp.ClientSession
    slots: asyncio.Semaphore  # one for each request that it may have at once
    num_answers: int = 0
    num_failures: int = 0  # since its last answer
    away_until: float = 0.0  # monotonic seconds
    on_trial: bool = False  # a request is finding out whether it is back

    def available(self) -> bool:
        return time.monotonic() >= self.away_until

    def rank(self, key: str) -> bytes:
        """Return the replica's rank for a key; the lowest wins (rendezvous hashing)."""
        return hashlib.blake2b(f"{self.url} {key}".encode("utf-8", "replace"), digest_size=8).digest()

    def failed(self, num_failures: int) -> None:
        """Note the failure of a request that was sent after `num_failures`; concurrent failures count once."""
        if self.num_failures > num_failures:
            return
        self.num_failures += 1
        self.away_until = time.monotonic() + backoff_seconds(self.num_failures)

    def start_trial(self) -> None:
        """Let one request find out whether the replica is back; the others leave it alone meanwhile."""
        self.on_trial = True
        self.away_until = time.monotonic() + backoff_seconds(self.num_failures)

    def answered(self) -> None:
        self.num_failures, self.away_until = 0, 0.0
        self.num_answers += 1

    async def ask(
        self, path: str, body: dict[str, Any] | None = None, *, timeout_seconds: float = CONNECT_SECONDS
    ) -> dict[str, Any]:
        """Return the JSON object that answers a POST of `body`, or a GET without one.

        Raises AttemptFailed if it may be repeated, and UserError if the server would refuse it again.
        """
        method, url = ("GET" if body is None else "POST"), self.url + path
        try:
            request = self.session.request(method, url, json=body, allow_redirects=False)
            async with asyncio.timeout(timeout_seconds), request as response:
                content = await response.read()
        except (ValueError, aiohttp.NonHttpUrlClientError) as error:
            raise UserError(f"{self.url}: not an address ({error}); give one such as http://127.0.0.1:8000") from None
        except aiohttp.ClientError as error:
            raise AttemptFailed(f"{type(error).__name__}: {_one_line(str(error))}", away=True) from error
        except TimeoutError:
            raise AttemptFailed(f"no answer in {timeout_seconds:g} s", away=True) from None
        _check_status(url, response, content)
        answer = _parsed(content)
        if not isinstance(answer, dict):
            raise AttemptFailed(f"not a JSON object: {_reason(content)}", away=True)
        return answer


def _check_status(url: str, response: aiohttp.ClientResponse, content: bytes) -> None:
    status = response.status
    if 300 <= status < 400:
        place = response.headers.get("location", "another address")
        raise UserError(f"{url} redirects to {place}, which is not followed; give the server's own address")
    if status == REQUEST_TIMEOUT:
        raise AttemptFailed("408, the request timed out", away=False)
    if status == TOO_MANY_REQUESTS:
        raise AttemptFailed("429, too many requests", away=False, pause_seconds=_retry_after(response))
    if status >= 500:
        raise AttemptFailed(f"{status}, {_reason(content)}", away=True, broke=status == INTERNAL_ERROR)
    if status != 200:
        hint = KEY_HINT if status in NO_ENTRY else ""
        raise UserError(f"{url} refused the request: {status}, {_reason(content)}{hint}")


def open_session(url: str, api_key: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            ssl=httpx.create_ssl_context() if url.startswith("https:") else True,  # certifi's, or SSL_CERT_FILE
        ),
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS),
        headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
        proxy=proxy_for(url),
    )


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment (HTTP_PROXY, NO_PROXY, ...) sets for an address; none for this machine."""
    try:
        scheme, host = urlsplit(url).scheme, urlsplit(url).hostname or ""
    except ValueError:
        return None  # not an address: `Replica.ask` reports it
    if host in ("127.0.0.1", "localhost", "::1") or proxy_bypass(host):
        return None
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def backoff_seconds(num_failures: int, *, longest: float = LONGEST_PAUSE_SECONDS) -> float:
    """Return the pause after the given number of failures: it doubles each time, with jitter."""
    return min(FIRST_PAUSE_SECONDS * 2 ** min(num_failures - 1, 20), longest) * random.uniform(0.8, 1.2)


def _retry_after(response: aiohttp.ClientResponse) -> float:
    text = response.headers.get("retry-after", "")
    return min(float(text), LONGEST_PAUSE_SECONDS) if text.isdigit() else 0.0


def _parsed(content: bytes) -> Any:
    """Parse JSON; return None if it is not valid."""
    try:
        return json.loads(content)
    except ValueError:
        return None


def _reason(content: bytes) -> str:
    """Return the server's error message on one line."""
    body = _parsed(content)
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        error = error.get("message", error)
    text = content.decode("utf-8", "replace") if error is None else str(error)
    return _one_line(text)[:300] or "no reason given"


def _one_line(text: str) -> str:
    return " ".join(text.split())
