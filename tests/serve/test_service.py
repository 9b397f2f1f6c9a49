"""The HTTP service over real connections: OpenAI's format, and everything that ends a search."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn

from domains.mathematics.domain import DOMAIN
from domains.mathematics.grading.judge import MathJudge
from miniature.writer import BootstrapPolicy
from rstar.inference.budget import Budget
from rstar.inference.solution import Ending
from rstar.protocols import Policy, PolicyError, Proposal
from rstar.search import SearchSettings
from sandbox.providers import open_sandbox
from serve.chat_completions import finish_reason
from serve.service import Limits, Service
from tasks.lib.engines import Engines

QUESTION = "Tom has 34 apples. Tom finds 12 apples. How many apples does Tom have now?"
USER = {"role": "user", "content": QUESTION}
FIRST_ANSWER = 4  # requests to the policy until the first answer; the search is not over then
Json = dict[str, Any]


class Shorter:
    """A scripted PPM that prefers short steps."""

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        return [1.0 / (1 + len(candidate)) for candidate in candidates]


class Stalling:
    """The bootstrap policy. It answers `calls` requests and then none."""

    def __init__(self, calls: int) -> None:
        self.policy, self.calls = BootstrapPolicy(), calls
        self.cancelled = threading.Event()

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        self.calls -= 1
        try:
            await asyncio.sleep(0 if self.calls >= 0 else 60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return await self.policy.propose(question, prefix, num_candidates=num_candidates, seed=seed)


class Dead:
    async def propose(self, *arguments: object, **settings: object) -> Sequence[Proposal]:
        raise PolicyError("out of memory")


class NoRoom:
    """An engine whose context is filled by the prompt."""

    async def propose(self, *arguments: object, **settings: object) -> Sequence[Proposal]:
        return [Proposal("", prompt_tokens=9000)]


@contextmanager
def served(policy: Policy | None = None, *, budget: Budget | None = None, **limits: Any) -> Iterator[Served]:
    """Serve in a thread, on a free port."""
    listening = socket.create_server(("127.0.0.1", 0))
    started: dict[str, Any] = {}
    ready = threading.Event()

    async def serve() -> None:
        async with open_sandbox("local") as executor, MathJudge() as judge:
            engines = Engines(DOMAIN, policy or BootstrapPolicy(), Shorter(), executor, judge)
            settings = SearchSettings(num_rollouts=1, num_candidates=4)
            service = Service("tiny", engines, settings, budget=budget or Budget(4), limits=Limits(**limits))
            config = uvicorn.Config(service.app(), lifespan="off", log_level="warning", timeout_graceful_shutdown=10)
            server = uvicorn.Server(config)
            started.update(service=service, server=server, loop=asyncio.get_running_loop())
            ready.set()
            await server.serve([listening])

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            yield Served(client, url, **started)
    finally:
        started["loop"].call_soon_threadsafe(started["service"].stop)
        started["server"].should_exit = True
        thread.join(30)
        listening.close()
    assert not thread.is_alive()


class Served:
    def __init__(self, client: httpx.Client, url: str, service: Service, server: uvicorn.Server, loop: Any) -> None:
        self.client, self.url, self.service, self.loop = client, url, service, loop

    def ask(self, **fields: object) -> httpx.Response:
        return self.client.post("/v1/chat/completions", json={"model": "tiny", "messages": [USER], **fields})

    def ask_in_thread(self) -> tuple[threading.Thread, list[httpx.Response]]:
        """Ask in another thread; return when the search runs."""
        answers: list[httpx.Response] = []

        def ask() -> None:
            body = {"messages": [USER]}
            answers.append(httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=30, trust_env=False))

        thread = threading.Thread(target=ask)
        thread.start()
        self.wait_for(in_flight=1)
        return thread, answers

    def wait_for(self, *, in_flight: int) -> None:
        deadline = time.monotonic() + 20
        while self.client.get("/health").json()["in_flight"] != in_flight:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def counted(self, outcome: str) -> int:
        return int(self.metric(f'rstar_requests_total{{outcome="{outcome}"}}'))

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return next(float(line.removeprefix(name)) for line in lines if line.startswith(f"{name} "))


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with served() as running:
        yield running


def test_a_reply_has_openais_form_the_steps_and_the_cost(service: Served) -> None:
    answer = service.ask(messages=[{"role": "system", "content": "Be kind."}, USER])
    assert answer.status_code == 200
    body = answer.json()
    assert (body["object"], body["model"]) == ("chat.completion", "tiny")
    assert body["id"].startswith("chatcmpl-") and isinstance(body["created"], int)
    (choice,) = body["choices"]
    assert (choice["index"], choice["finish_reason"], choice["message"]["role"]) == (0, "stop", "assistant")
    content = choice["message"]["content"]
    assert content.startswith("```python\n") and "\\boxed{46}" in content.splitlines()[-1]
    assert "<" not in content
    assert body["rstar"]["answer"] == body["rstar"]["majority"] == "46"
    assert {"score", "runner_up", "trajectories", "seconds", "steps"} <= body["rstar"].keys()
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] == body["rstar"]["tokens"] > 0


def test_equal_seeds_give_equal_answers(service: Served) -> None:
    first, again = (service.ask(seed=5).json() for _ in range(2))
    changing = {"seconds"}
    assert all(first["rstar"][key] == again["rstar"][key] for key in first["rstar"].keys() - changing)
    assert first["choices"] == again["choices"]


def test_text_may_come_in_parts(service: Served) -> None:
    content = [{"type": "text", "text": QUESTION}]
    assert service.ask(messages=[{"role": "user", "content": content}]).json()["rstar"]["answer"] == "46"


def test_a_stream_has_better_trajectories_then_the_answer_and_ends_like_openais(service: Served) -> None:
    body = {"messages": [USER], "stream": True, "stream_options": {"include_usage": True}}
    with service.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    chunks: list[Json] = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert deltas[0]["role"] == "assistant"
    assert any("best so far" in delta.get("reasoning_content", "") for delta in deltas)
    whole = service.ask().json()
    assert "".join(delta.get("content", "") for delta in deltas) == whole["choices"][0]["message"]["content"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]][-1] == "stop"
    assert chunks[-2]["rstar"]["answer"] == "46"
    assert chunks[-1]["usage"] == whole["usage"] and chunks[-1]["choices"] == []


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("{torn", 400, "not JSON"),
        ("[" * 100_000, 400, "not JSON"),
        ("[1]", 400, "not a JSON object"),
        ({}, 400, "messages"),
        ({"messages": []}, 400, "no user message"),
        ({"messages": [{"role": "assistant", "content": "Hello"}]}, 400, "no user message"),
        ({"messages": [{"role": "user", "content": " \n"}]}, 400, "empty"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "only text"),
        ({"messages": [{"role": "user", "content": "\ud800?"}]}, 400, "Unicode"),
        ({"messages": [{"role": "user", "content": "x" * 16_001}]}, 400, "16001 characters"),
        ({"messages": [USER], "model": "gpt-4"}, 404, "no model 'gpt-4'"),
        ({"messages": [USER], "n": 2}, 400, "n: must be 1"),
        ({"messages": [USER], "stream": "yes"}, 400, "stream: expected true or false"),
        ({"messages": [USER], "seed": 1.5}, 400, "seed: expected a whole number"),
        ({"messages": [USER], "budget": "long"}, 400, "budget 'long'"),
        ({"messages": [USER], "budget": "9" * 1000}, 400, f"budget '{'9' * 79}…'"),
        ({"messages": [USER], "budget": "1" + " " * 99 + "x"}, 400, "…'"),
        ({"messages": [USER], "budget": True}, 400, "budget: expected a whole number"),
        ({"messages": [USER], "budget": {"seconds": "9" * 1000}}, 400, "budget: expected a whole number"),
        ({"messages": [USER], "max_completion_tokens": 0}, 400, "at least 1"),
        (" " * 300_000, 413, "longer than 262144 bytes"),
    ],
)
def test_a_bad_request_gets_an_error_in_openais_form(service: Served, body: object, status: int, words: str) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    before = service.counted("invalid")
    answer = service.client.post("/v1/chat/completions", content=content)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert words in answer.json()["error"]["message"]
    assert service.counted("invalid") == before + 1


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v2", 404), ("GET", "/v1/chat/completions", 405)])
def test_an_unknown_route_gets_an_error_in_the_same_form(service: Served, method: str, path: str, status: int) -> None:
    answer = service.client.request(method, path)
    assert answer.status_code == status
    assert path in answer.json()["error"]["message"]


def test_models_health_and_metrics(service: Served) -> None:
    assert [model["id"] for model in service.client.get("/v1/models").json()["data"]] == ["tiny"]
    assert service.client.get("/health").json() == {"status": "ok", "model": "tiny", "in_flight": 0}
    before = service.counted("answered"), service.metric("rstar_generated_tokens_total")
    tokens = service.ask().json()["usage"]["completion_tokens"]
    assert service.counted("answered") == before[0] + 1
    assert service.metric("rstar_generated_tokens_total") == before[1] + tokens
    assert service.metric("rstar_search_seconds_total") > 0


def test_a_request_can_have_its_own_budget(service: Served) -> None:
    assert service.ask(budget="1").json()["rstar"]["rollouts"] == 1
    few, many = (service.ask(max_completion_tokens=count, budget="9").json()["usage"] for count in (1, 10**9))
    assert 0 < few["completion_tokens"] < many["completion_tokens"]


def test_requests_above_the_limit_are_refused_and_health_still_answers() -> None:
    policy = Stalling(calls=0)
    with served(policy, max_in_flight=1, timeout_seconds=2.0) as service:
        policy.calls = 1
        thread, answers = service.ask_in_thread()
        refused = service.ask()
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert service.client.get("/health").status_code == 200
        thread.join()
        assert answers[0].status_code == 504
        assert service.counted("refused") == 1
        assert service.metric("rstar_requests_in_flight") == 0
        policy.calls = 1
        assert service.ask().status_code == 504  # there is capacity again


def test_a_refusal_does_not_wait_for_the_body() -> None:
    with served(Stalling(calls=1), max_in_flight=1, timeout_seconds=5.0) as service:
        thread, _ = service.ask_in_thread()
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=4) as connection:
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nContent-Length: 9999\r\n\r\n{")
            assert connection.recv(12) == b"HTTP/1.1 429"
        thread.join()


def test_closing_waits_until_the_searches_have_ended() -> None:
    policy = Stalling(calls=1)
    with served(policy, budget=Budget(99)) as service:
        thread, answers = service.ask_in_thread()
        asyncio.run_coroutine_threadsafe(service.service.close(10), service.loop).result(15)
        assert policy.cancelled.is_set() and not service.service._jobs
        thread.join(10)
        assert answers[0].status_code == 503


def test_a_timeout_returns_the_best_so_far_or_504() -> None:
    policy = Stalling(calls=FIRST_ANSWER)
    with served(policy, budget=Budget(99), timeout_seconds=1.5) as service:
        found = service.ask()
        assert found.status_code == 200
        assert found.json()["rstar"]["timed_out"] and found.json()["rstar"]["answer"]
        policy.calls = 1
        nothing = service.ask()
        assert nothing.status_code == 504
        assert nothing.json()["error"]["type"] == "timeout_error"
        assert service.counted("timed_out") == 1
        policy.calls = 1
        own = service.ask(budget="0.5s")  # reaching its own limit is no timeout
        assert own.status_code == 200 and own.json()["choices"][0]["finish_reason"] == "length"
        assert service.counted("unanswered") == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_disconnects_ends_its_search(stream: bool) -> None:
    policy = Stalling(calls=2)
    with served(policy, max_in_flight=1) as service:
        body = {"messages": [USER], "stream": stream}
        with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=0.5, trust_env=False) as client:
            client.post(f"{service.url}/v1/chat/completions", json=body)
        assert policy.cancelled.wait(10)
        service.wait_for(in_flight=0)
        assert service.counted("cancelled") == 1
        policy.calls = 10**6
        assert service.ask().json()["rstar"]["answer"] == "46"


def test_a_stopping_service_returns_the_best_so_far_and_refuses_requests() -> None:
    with served(Stalling(calls=FIRST_ANSWER), budget=Budget(99)) as service:
        thread, answers = service.ask_in_thread()
        time.sleep(0.5)
        service.loop.call_soon_threadsafe(service.service.stop)
        thread.join(10)
        assert answers[0].json()["rstar"]["ending"] == "stopped"
        assert answers[0].json()["rstar"]["answer"]
        assert service.ask().status_code == 503
        assert service.client.get("/health").status_code == 503


@pytest.mark.parametrize("stream", [False, True])
def test_a_dead_engine_is_a_server_error(stream: bool) -> None:
    with served(Dead()) as service:
        answer = service.ask(stream=stream)
        assert answer.status_code == (200 if stream else 503)  # a stream starts before the error
        error = (json.loads(answer.text.split("data: ")[2]) if stream else answer.json())["error"]
        assert error["type"] == "server_error" and "out of memory" in error["message"]
        assert service.counted("failed") == 1


def test_what_an_engine_rejects_is_a_server_error_with_the_reason_only_in_the_log(
    service: Served, caplog: pytest.LogCaptureFixture
) -> None:
    before = service.counted("failed"), service.counted("invalid")
    answer = service.ask(messages=[{"role": "user", "content": "Who are you?"}])
    assert answer.status_code == 502 and answer.json()["error"]["type"] == "server_error"
    assert "families" not in answer.text and "families" in caplog.text
    assert (service.counted("failed"), service.counted("invalid")) == (before[0] + 1, before[1])


def test_an_engine_that_never_answers_is_a_server_error_and_no_timeout() -> None:
    with served(Stalling(calls=0), budget=Budget(99), timeout_seconds=0.5) as service:
        for fields in ({}, {"budget": "0.2s"}):
            answer = service.ask(**fields)
            assert answer.status_code == 503
            assert "the policy gave no answer" in answer.json()["error"]["message"]
        assert (service.counted("failed"), service.counted("timed_out")) == (2, 0)


def test_a_problem_that_fills_the_context_is_too_long() -> None:
    with served(NoRoom()) as service:
        answer = service.ask()
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(("ending", "reason"), [(Ending.BUDGET, "length"), (Ending.CLOSED, "stop")])
def test_finish_reason_is_length_only_if_the_budget_ended_the_search_unanswered(ending: Ending, reason: str) -> None:
    assert finish_reason(SimpleNamespace(best=None, ending=ending)) == reason  # type: ignore[arg-type]
