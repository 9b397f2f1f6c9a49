"""The Prometheus metrics of `rstar serve`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest

from rstar.inference.solving import Solving

disable_created_metrics()  # otherwise each counter would have a second series with its creation time
OUTCOMES = ("answered", "unanswered", "timed_out", "invalid", "refused", "cancelled", "failed")


class Metrics:
    """The counters of one service. They have their own registry, so that two services in a process stay apart."""

    def __init__(self, num_in_flight: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        counter = partial(Counter, registry=self._registry)
        self._requests = counter("rstar_requests", "Chat completions by outcome.", ["outcome"])
        self._tokens = counter("rstar_generated_tokens", "Generated tokens of all candidates.")
        self._searches = counter("rstar_searches", "Finished searches.")
        self._seconds = counter("rstar_search_seconds", "Wall-clock seconds of finished searches.")
        in_flight = Gauge("rstar_requests_in_flight", "Running searches.", registry=self._registry)
        in_flight.set_function(num_in_flight)
        for outcome in OUTCOMES:
            self._requests.labels(outcome)
        self._num_ended, self._total_seconds = 0, 0.0

    @property
    def mean_seconds(self) -> float:
        """The mean time of a search; a guess before the first one has ended."""
        return self._total_seconds / self._num_ended if self._num_ended else 1.0

    def count(self, outcome: str) -> None:
        self._requests.labels(outcome).inc()

    def add_search(self, solving: Solving) -> None:
        self._searches.inc()
        self._tokens.inc(solving.num_tokens)
        self._seconds.inc(solving.seconds)
        self._num_ended += 1
        self._total_seconds += solving.seconds

    def text(self) -> bytes:
        return generate_latest(self._registry)
