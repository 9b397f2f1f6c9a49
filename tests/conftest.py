"""What the flows' tests share: a temporary Prefect server, which calls nobody and ends with its module.

Where tests run in several processes each has its share of the cores for its own models: threads that share one spin and
wait.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator

import pytest

# Before Prefect is loaded: its results and database stay out of the user's home.
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="rstar-prefect-")
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
os.environ["TQDM_DISABLE"] = "1"
# Before torch is.
if num_workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // num_workers)))
os.environ.pop("PREFECT_API_URL", None)


LONG = ("test_served_round.py", "test_learning.py", "test_served.py", "test_served_search.py", "test_smoke.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process is left with one of them at the end."""
    order = {name: at for at, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="module", autouse=True)
def _no_servers_stay() -> Iterator[None]:
    """vLLM's, which else would be kept for the next who asks."""
    yield
    if serving := sys.modules.get("models.served.vllm_servers"):
        serving.stop_idle()


@pytest.fixture(scope="module")
def prefect_server() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
