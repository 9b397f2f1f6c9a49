"""`rstar doctor`: what this machine has, and what to do about what is missing. It changes nothing."""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from rstar.protocols import UserError
from sandbox.providers import open_sandbox

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `advice` is empty if there is nothing to do."""

    what: str
    state: str
    advice: str = ""


def examine() -> list[Finding]:
    """Run every check."""
    checks: tuple[Callable[[], Finding], ...] = (
        python, processors, memory, disk, local_sandbox, docker_sandbox, gpu, prefect_server, object_store, base_model,
        vllm,
    )  # fmt: skip
    return [check() for check in checks]


def python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", version, "" if sys.version_info >= (3, 11) else "install Python 3.11 or later")


def processors() -> Finding:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding("CPU cores", str(count), "" if count >= 2 else "the demo takes about twice as long as on two cores")


def memory() -> Finding:
    free = psutil.virtual_memory().available / GIB
    advice = "" if free >= 6 else "the demo needs up to 6 GiB: lower model.max_batch and search.max_in_flight"
    return Finding("memory", f"{free:.1f} GiB free", advice)


def disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / GIB
    return Finding(
        "disk", f"{free:.1f} GiB free here", "" if free >= 5 else "free some space, or use another disk: --out"
    )


def local_sandbox() -> Finding:
    if sys.platform != "linux":
        return Finding("local sandbox", f"does not run on {sys.platform}", "use Docker or Linux")
    try:
        return Finding("local sandbox", asyncio.run(_isolation()))
    except Exception as error:  # any reason why it does not start is the finding
        return Finding("local sandbox", f"does not start: {error}", "use Docker (docs/sandbox.md)")


async def _isolation() -> str:
    async with open_sandbox("local") as sandbox:
        return sandbox.protections().removeprefix("Local sandbox: ").partition(". ")[0]


def docker_sandbox() -> Finding:
    from sandbox.container import GVISOR, IMAGE, NoEngine, check_image, engine

    try:
        with engine() as client:
            version = f"engine {client.version()['Version']}"
            has_gvisor = GVISOR in client.info().get("Runtimes", {})
            check_image(client, IMAGE)
    except UserError as error:
        no_engine = "start Docker, or set DOCKER_HOST; until then steps run in the local sandbox"
        return Finding("Docker sandbox", str(error).removeprefix("sandbox: ").split(";")[0],
                       no_engine if isinstance(error, NoEngine) else "run `rstar sandbox build`")  # fmt: skip
    return Finding("Docker sandbox", f"{version}, image {IMAGE}, {'gVisor' if has_gvisor else 'no gVisor'}")


def gpu() -> Finding:
    advice = "not needed for the demo; 7B models need one, and a CUDA build of torch"
    if not (nvidia_smi := shutil.which("nvidia-smi")):
        return Finding("GPU", "none found (no nvidia-smi)", advice)
    query = [nvidia_smi, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("GPU", f"nvidia-smi does not answer: {error}", advice)
    names = "; ".join(answer.stdout.strip().splitlines())
    return Finding("GPU", names or answer.stderr.strip()[:80], "" if names else advice)


def prefect_server() -> Finding:
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        advice = "for a permanent UI: `prefect server start`, and PREFECT_API_URL=http://127.0.0.1:4200/api"
        return Finding("Prefect server", "PREFECT_API_URL is not set: each run starts a temporary server", advice)
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=3) as answer:
            return Finding("Prefect server", f"answers {answer.status} at {url}")
    except urllib.error.HTTPError as error:  # such as 401: the server runs, and Prefect explains the rest
        return Finding("Prefect server", f"answers {error.code} at {url}")
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        return Finding(
            "Prefect server", f"{url}: {reason}", "start the server, or unset PREFECT_API_URL to use a temporary one"
        )


def object_store() -> Finding:
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "AWS")
    if importlib.util.find_spec("s3fs") is None:
        return Finding("S3", "s3fs is not installed", "install the package with its dependencies again")
    if not (os.environ.get("AWS_ACCESS_KEY_ID") or Path("~/.aws/credentials").expanduser().exists()):
        advice = "only needed for tables at s3://…: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return Finding("S3", "no credentials", advice)
    return Finding("S3", f"credentials for {endpoint} (not tried)")


def base_model() -> Finding:
    folder = Path(__file__).parent.parent / "miniature" / "base" / "weights"
    if (folder / "model.safetensors").exists():
        return Finding("tiny base model", "present")
    return Finding("tiny base model", f"none in {folder}", "run `make tiny-base` (takes up to an hour)")


def vllm() -> Finding:
    from models.served.vllm_servers import vllm_python

    try:
        return Finding("vLLM", f"in the environment of {vllm_python()}")
    except UserError as error:
        advice = str(error).rsplit("; ", 1)[-1]
        return Finding("vLLM", "not installed", f"only needed for engine.kind = 'vllm': {advice}")
