"""The process of `rstar serve`: its port, its engines, and how it stops."""

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
from rstar.inference.budget import Budget
from rstar.protocols import UserError
from serve.service import Limits, Service
from tasks.lib.engines import Models, open_engines

GRACE_SECONDS = 10  # to send the last replies, and for the searches to end
SPARE_CONNECTIONS = 64  # in addition to those of searches: for refused requests, /health and /metrics


class Server(uvicorn.Server):
    """A uvicorn server. SIGINT or SIGTERM stops the searches and sends their replies; a second one ends it at once."""

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
    """Serve models of the run at `root` until a signal arrives."""

    async def serve(listening: socket.socket) -> None:
        settings, top_k = plans.inference_settings(recipe), recipe.evaluation.top_k
        async with open_engines(models, plans.sandbox(recipe)) as engines:
            default = budget or plans.budget(recipe)
            service = Service(recipe.run.name, engines, settings, budget=default, limits=limits, top_k=top_k)
            url = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/v1"
            costs = f"{default} per problem, {limits.timeout_seconds:g} s at most, {limits.max_in_flight} at a time"
            console.print(
                f"model {service.model} of {root} at {url} ({costs}); Ctrl-C stops", markup=False, soft_wrap=True
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
    """Open the port, before any model is loaded. Raises UserError if that fails."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"--host {host} --port {port}: cannot listen there ({reason}); choose another port") from None
