"""The process of `rstar serve`: its port, its engines, and its end."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from rich.console import Console
from starlette.applications import Starlette

from flows import plans
from flows.recipe import Recipe
from rstar.inference.solving import Budget
from rstar.protocols import UserError
from serve.service import Limits, Service
from tasks.lib.engines import Models, opened

GRACE_SECONDS = 10  # for the last answers to leave, and for their searches to end
SPARE_CONNECTIONS = 64  # besides those of searches: to be refused, or ask for /health and /metrics


class Server(uvicorn.Server):
    """Ends on SIGINT and SIGTERM with the answers that are there; a second signal ends it at once."""

    def __init__(self, app: Starlette, on_stop: Callable[[], None], *, max_searches: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                log_level="warning",
                access_log=False,
                limit_concurrency=max_searches + SPARE_CONNECTIONS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self._on_stop = on_stop

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self._on_stop()


def serve_run(
    root: str, recipe: Recipe, models: Models, *, host: str, port: int, limits: Limits, budget: Budget | None,
    console: Console,
) -> None:  # fmt: skip
    """Serve models of the run at `root` until a signal comes."""

    async def serve(listening: socket.socket) -> None:
        settings, top_k = plans.examination(recipe).settings, recipe.evaluation.top_k
        async with opened(models, plans.sandbox(recipe)) as engines:
            each = budget or plans.budget(recipe)
            service = Service(recipe.run.name, engines, settings, budget=each, limits=limits, top_k=top_k)
            place = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/v1"
            words = f"{each} a problem, {limits.max_in_flight} at once, {limits.timeout_seconds:g} s at most"
            console.print(
                f"model {service.model} of {root} at {place} ({words}); Ctrl-C stops", markup=False, soft_wrap=True
            )
            server = Server(service.app(), service.stop, max_searches=limits.max_in_flight)
            try:
                await server.serve([listening])
            finally:
                await service.close(0 if server.force_exit else GRACE_SECONDS)
        console.print("stopped")

    with listen(host, port) as listening:
        asyncio.run(serve(listening))


def listen(host: str, port: int) -> socket.socket:
    """Take the port before any model is loaded."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: cannot listen there ({error.strerror or error})") from None
