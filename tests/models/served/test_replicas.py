"""Requests to real HTTP servers that fail, hang, die and come back: none is lost, none is answered twice."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from models.served.endpoints import open_replicas
from models.served.replica import proxy_for
from models.served.replicas import Replicas
from rstar.protocols import PolicyError, UserError

Starter = Callable[..., Any]
KEYS = [f"question {number}" for number in range(30)]


def echo(path: str, body: dict[str, Any]) -> tuple[int, Any]:
    return 200, {"number": body.get("number")}


def slow_echo(path: str, body: dict[str, Any]) -> tuple[int, Any]:
    time.sleep(0.02)
    return echo(path, body)


def opened(*servers: Any, **options: Any) -> Replicas:
    return Replicas([server.url for server in servers], PolicyError, **options)


def keys_of(server: Any) -> set[str]:
    return {body["key"] for body in server.bodies}


async def ask_all(replicas: Replicas, *, times: int = 1) -> list[int]:
    """Ask `times` times for every key, all at once."""
    bodies = [{"number": i, "key": key} for i, key in enumerate(KEYS * times)]
    answers = await asyncio.gather(*(replicas.post("/ask", body, body["key"]) for body in bodies))
    return [answer["number"] for answer in answers]


async def test_a_key_goes_to_one_replica_and_all_replicas_are_used(http_server: Starter) -> None:
    servers = [http_server(echo) for _ in range(3)]
    async with opened(*servers) as replicas:
        assert await ask_all(replicas, times=4) == list(range(120))
    homes = [keys_of(server) for server in servers]
    assert all(homes)
    assert sum(map(len, homes)) == len(KEYS)
    assert sum(len(server.bodies) for server in servers) == 120


async def test_a_replica_that_dies_in_mid_run_loses_nothing_and_only_its_keys_move(http_server: Starter) -> None:
    dying, *others = servers = [http_server(slow_echo) for _ in range(3)]
    async with opened(*servers, max_in_flight=4) as replicas:
        await ask_all(replicas)
        before = [keys_of(server) for server in servers]
        running = asyncio.create_task(ask_all(replicas, times=10))
        await asyncio.sleep(0.1)
        dying.die()
        assert await running == list(range(300))
        answered = sum(replica.num_answers for replica in replicas._replicas)
    assert answered == 330
    assert replicas.num_retries > 0
    moved = set().union(*(keys_of(server) - home for server, home in zip(others, before[1:], strict=True)))
    assert moved and moved <= before[0]


async def test_a_replica_that_comes_back_gets_its_keys_back(http_server: Starter) -> None:
    away, _ = servers = [http_server(echo) for _ in range(2)]
    async with opened(*servers) as replicas:
        await ask_all(replicas)
        home = keys_of(away)
        away.die()
        await ask_all(replicas)
        away.start()
        for _ in range(20):  # one request finds out that it is back
            await asyncio.sleep(0.5)
            away.bodies.clear()
            await ask_all(replicas)
            if len(away.bodies) > 1:
                break
        away.bodies.clear()
        await ask_all(replicas, times=2)
    assert keys_of(away) == home


async def test_while_one_request_tries_a_failed_replica_the_others_go_elsewhere(http_server: Starter) -> None:
    hung, go_on = http_server(lambda path, body: (503, {})), threading.Event()

    def hangs(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        go_on.wait(10)
        return echo(path, body)

    async with opened(hung, http_server(echo)) as replicas:
        assert await ask_all(replicas) == list(range(30))  # the failed replica is left alone for a moment
        hung.behave = hangs
        hung.bodies.clear()
        until = time.monotonic() + 3  # several trials would fit in, half a second or more apart
        trials = []
        while time.monotonic() < until:
            asking = [asyncio.create_task(replicas.post("/ask", {"key": key}, key)) for key in KEYS]
            _, waiting = await asyncio.wait(asking, timeout=0.3)
            trials += waiting
        assert len(hung.bodies) == len(trials) == 1
        go_on.set()
        await trials[0]


async def test_nothing_is_lost_while_every_replica_is_away(http_server: Starter) -> None:
    servers = [http_server(echo) for _ in range(2)]
    async with opened(*servers) as replicas:
        for server in servers:
            server.die()
        running = asyncio.create_task(ask_all(replicas, times=3))
        await asyncio.sleep(3)
        assert not running.done()
        servers[1].start()
        assert await running == list(range(90))
    served = Counter(body["number"] for body in servers[1].bodies)
    assert served == Counter(range(90))


async def test_busy_time_counts_once_however_many_requests_are_in_flight(http_server: Starter) -> None:
    def slow(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(0.2)
        return echo(path, body)

    async with opened(http_server(slow)) as replicas:
        await asyncio.gather(*(replicas.post("/ask", {"number": i}, str(i)) for i in range(8)))
        busy = replicas.busy_seconds
        assert 0.2 <= busy < 0.8
        await asyncio.sleep(0.3)
        await replicas.post("/ask", {"number": 9}, "9")
        assert 0.2 <= replicas.busy_seconds - busy < 0.5


async def test_when_patience_ends_the_error_names_the_dead_server(http_server: Starter) -> None:
    server = http_server(echo)
    server.die()
    async with opened(server, patience_seconds=0.5) as replicas:
        with pytest.raises(PolicyError, match=r"given up after 0\.5 s") as caught:
            await replicas.post("/ask", {}, "key")
    assert "\n" not in str(caught.value) and server.url in str(caught.value)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_a_request_to_an_overloaded_or_failing_server_is_retried(http_server: Starter, status: int) -> None:
    attempts: Counter[int] = Counter()

    def twice_refused(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        attempts[body["number"]] += 1
        return (status, {"error": {"message": "busy"}}) if attempts[body["number"]] <= 2 else echo(path, body)

    async with opened(http_server(twice_refused)) as replicas:
        assert await replicas.post("/ask", {"number": 5}, "key") == {"number": 5}
    assert attempts == {5: 3}


async def test_a_request_that_breaks_servers_which_answer_others_fails(
    http_server: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.served.replica.FIRST_PAUSE_SECONDS", 0.002)
    attempts: Counter[int] = Counter()

    def breaks_on_seven(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        attempts[body["number"]] += 1
        return (500, {"error": {"message": "index out of range"}}) if body["number"] == 7 else echo(path, body)

    async with opened(http_server(breaks_on_seven), http_server(breaks_on_seven), patience_seconds=60.0) as replicas:

        async def others() -> None:
            while True:
                assert await replicas.post("/ask", {"number": 8}, "key") == {"number": 8}

        beside = asyncio.create_task(others())
        with pytest.raises(PolicyError, match="500, index out of range; given up after"):
            await replicas.post("/ask", {"number": 7}, "key")
        beside.cancel()
    assert 6 <= attempts[7] < 30 and attempts[8]


async def test_servers_that_break_on_everything_are_waited_for(
    http_server: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.served.replica.FIRST_PAUSE_SECONDS", 0.002)
    attempts: Counter[int] = Counter()

    def ill(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        attempts[body["number"]] += 1
        return (500, {}) if sum(attempts.values()) < 10 else echo(path, body)

    async with opened(http_server(ill), patience_seconds=60.0) as replicas:
        assert await replicas.post("/ask", {"number": 7}, "key") == {"number": 7}
    assert attempts[7] == 10


@pytest.mark.parametrize("status", [400, 401, 404, 422])
async def test_any_other_refusal_is_an_error_of_one_line_at_once(http_server: Starter, status: int) -> None:
    server = http_server(lambda path, body: (status, {"error": {"message": "too long:\nshorten it"}}))
    async with opened(server, http_server(echo)) as replicas:
        [key] = [key for key in KEYS if replicas._choose(key).url == server.url][:1]
        with pytest.raises(UserError, match=f"{status}, too long: shorten it") as caught:
            await replicas.post("/ask", {}, key)
    assert "\n" not in str(caught.value)
    assert ("OPENAI_API_KEY" in str(caught.value)) == (status == 401)
    assert replicas.num_retries == 0


async def test_an_overloaded_server_keeps_its_keys(http_server: Starter) -> None:
    seen: dict[str, int] = defaultdict(int)

    def first_busy(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        seen[body["key"]] += 1
        return (429, {}) if seen[body["key"]] == 1 else echo(path, body)

    servers = [http_server(first_busy) for _ in range(2)]
    async with opened(*servers) as replicas:
        assert await ask_all(replicas) == list(range(30))
    assert not keys_of(servers[0]) & keys_of(servers[1])


async def test_requests_to_a_hanging_replica_move_to_another(http_server: Starter) -> None:
    def hanging(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(3)
        return echo(path, body)

    servers = [http_server(hanging), http_server(echo)]
    async with opened(*servers, timeout_seconds=0.5) as replicas:
        began = time.monotonic()
        assert await ask_all(replicas) == list(range(30))
    assert time.monotonic() - began < 2.5


async def test_a_truncated_answer_or_one_without_a_json_object_is_retried(http_server: Starter) -> None:
    answers = iter([None, b"<html>bad gateway</html>", b"[1]", {"number": 1}])

    def broken(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if (answer := next(answers)) is None:
            raise ConnectionError
        return 200, answer

    async with opened(http_server(broken)) as replicas:
        assert await replicas.post("/ask", {"number": 1}, "key") == {"number": 1}
    assert replicas.num_retries == 3


async def test_each_replica_gets_at_most_the_allowed_requests_at_once(http_server: Starter) -> None:
    servers = [http_server(slow_echo) for _ in range(2)]
    async with opened(*servers, max_in_flight=3) as replicas:
        await ask_all(replicas, times=3)
    assert [server.most_at_once for server in servers] == [3, 3]


def lists(*names: str, context: int | None = None) -> Callable[..., tuple[int, Any]]:
    return lambda path, body: (200, {"data": [{"id": name, "max_model_len": context} for name in names]})


async def test_opening_finds_the_model_by_its_name_and_knows_its_context(http_server: Starter) -> None:
    servers = [http_server(lists("other", "math", context=512)) for _ in range(2)]
    async with open_replicas("math", [f"{server.url}/v1/" for server in servers], PolicyError) as (_, endpoint):
        assert (endpoint.model, endpoint.max_context, endpoint.is_vllm) == ("math", 512, False)


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ([("math",), ("other",)], ["serves other, not math", "[engine]"]),
        ([()], ["serves nothing, not math"]),
        ([], ["no address", "[engine]"]),
    ],
)
async def test_an_endpoint_with_another_model_is_an_error_of_one_line(
    http_server: Starter, models: list[tuple[str, ...]], words: list[str]
) -> None:
    urls = [http_server(lists(*names)).url for names in models]
    with pytest.raises(UserError) as caught:
        async with open_replicas("math", urls, PolicyError):
            pass
    assert "\n" not in str(caught.value)
    assert [word for word in words if word not in str(caught.value)] == []


async def test_an_endpoint_that_does_not_answer_is_an_error_and_one_of_two_is_enough(
    http_server: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.served.endpoints.OPENING_SECONDS", 0.2)
    gone, here = http_server(echo), http_server(lists("math"))
    page = http_server(lambda path, body: (200, ["a page"]))
    gone.die()
    for server, reason in ((gone, "Client"), (page, "not a JSON object")):
        with pytest.raises(UserError, match=rf"no endpoint answers there \({reason}.*\); start the server of math"):
            async with open_replicas("math", [server.url], PolicyError):
                pass
    async with open_replicas("math", [gone.url, here.url], PolicyError) as (_, endpoint):
        assert endpoint.model == "math"
    with pytest.raises(UserError, match="not an address"):
        async with open_replicas("math", ["localhost:80"], PolicyError):
            pass


@pytest.mark.parametrize("url", ["http://[::1", "http://a..b:8000", "127.0.0.1:8000", "ftp://127.0.0.1"])
async def test_an_invalid_address_is_an_error_of_one_line(url: str) -> None:
    async with Replicas([url], PolicyError) as replicas:
        with pytest.raises(UserError, match="not an address"):
            await replicas.post("/echo", {}, "key")


class _Elsewhere(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(301)
        self.send_header("location", "http://127.0.0.1:9/echo")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


async def test_a_redirect_is_an_error_that_names_its_target() -> None:
    with HTTPServer(("127.0.0.1", 0), _Elsewhere) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        async with Replicas([f"http://127.0.0.1:{server.server_port}"], PolicyError) as replicas:
            with pytest.raises(UserError, match=r"redirects to http://127\.0\.0\.1:9/echo, which is not followed"):
                await replicas.post("/echo", {"number": 1}, "key")


async def test_replicas_can_be_opened_again(http_server: Starter) -> None:
    replicas = opened(http_server(echo))
    for number in (1, 2):
        async with replicas:
            assert await replicas.post("/echo", {"number": number}, "key") == {"number": number}


def test_proxies_come_from_the_environment_except_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "proxy:3128")
    monkeypatch.setenv("all_proxy", "http://other:1")
    monkeypatch.setenv("no_proxy", "near.example")
    asked = ("http://far.example:8000", "https://far.example", "http://near.example", "http://127.0.0.1:8000")
    assert [*map(proxy_for, asked)] == ["http://proxy:3128", "http://other:1", None, None]
