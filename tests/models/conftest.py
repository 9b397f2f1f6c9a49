"""A policy small enough to train in a test, with the real tokenizer, and HTTP servers that misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from miniature.base.model import train_tokenizer

Behaviour = Callable[[str, dict[str, Any]], tuple[int, Any]]


@pytest.fixture(scope="session")
def small_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer policy with random weights, large enough that its candidates differ."""
    path = tmp_path_factory.mktemp("policy")
    tokenizer = train_tokenizer()
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=96,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            initializer_range=0.3,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256  # with the default of five, clients wait a second for a connection


class FakeServer:
    """A real HTTP server on its own port that answers as `behave` says.

    `behave(path, body)` returns a status and an answer; it may sleep, and raise ConnectionError to drop the connection.
    """

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.bodies: list[dict[str, Any]] = []
        self.num_at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        self._port = 0
        self.start()
        self._port = self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.answer({})

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body: dict[str, Any]) -> None:
                if outer.dead:
                    self.close_connection = True
                    return
                try:
                    status, answer = outer.handle(self.path, body)
                except ConnectionError:
                    self.close_connection = True
                    return
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self.dead = False
        self._server = _Listener(("127.0.0.1", self._port), Handler)
        threading.Thread(target=partial(self._server.serve_forever, poll_interval=0.02), daemon=True).start()

    def handle(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        with self._lock:
            if body:
                self.bodies.append(body)
            self.num_at_once += 1
            self.most_at_once = max(self.most_at_once, self.num_at_once)
        try:
            return self.behave(path, body)
        finally:
            with self._lock:
                self.num_at_once -= 1

    def die(self) -> None:
        """Accept no more connections, and drop open ones at their next request."""
        self.dead = True
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def http_server() -> Iterator[Callable[[Behaviour], FakeServer]]:
    """Start servers that end with the test."""
    started: list[FakeServer] = []

    def start(behave: Behaviour) -> FakeServer:
        started.append(FakeServer(behave))
        return started[-1]

    yield start
    for server in started:
        if not server.dead:
            server.die()
