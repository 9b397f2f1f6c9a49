"""What tests share: environment variables, the order of files, and a temporary Prefect server for a module.

If tests run in several processes, each process gets its share of the cores for its models. Threads that compete for a
core would waste it by spinning.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator

import pytest

# Set before Prefect is imported, so that its results and database are not in the user's home.
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="rstar-prefect-")
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
os.environ["TQDM_DISABLE"] = "1"
# Set before torch is imported.
if num_workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // num_workers)))
os.environ.pop("PREFECT_API_URL", None)

LONG = ("test_served_round.py", "test_learning.py", "test_served.py", "test_served_search.py", "test_smoke.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, so that none of them runs alone at the end."""
    order = {name: index for index, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="module", autouse=True)
def _stop_servers() -> Iterator[None]:
    """Stop the vLLM servers that would be kept for the next user."""
    yield
    if serving := sys.modules.get("models.served.vllm_servers"):
        serving.stop_idle()


@pytest.fixture(scope="module")
def prefect_server() -> Iterator[None]:
    """Run a temporary Prefect server."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Handle SIGINT as in a terminal, here and in processes that a test starts. A background job would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
