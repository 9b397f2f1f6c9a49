"""The Docker provider: each fork server is process 1 of its own hardened container.

A container has no network, a read-only root, no capabilities, no new privileges, a system call filter stricter than
Docker's, limits on processes, memory and processor time, an unprivileged user and one small tmpfs. See docs/sandbox.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import socket
import struct
import tarfile
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from docker.types import LogConfig, Ulimit

from rstar.protocols import SandboxLost, UserError
from sandbox.limits import Limits
from sandbox.link import BOOT, ENVIRONMENT, MAX_LINE_BYTES, hello
from sandbox.owner import Owner, this_process
from sandbox.pool import Sandbox

HERE = Path(__file__).parent
BUILD = HERE.parent / "infra" / "sandbox"
IMAGE = "rstar-sandbox"
GVISOR = "runsc"  # the name of gVisor's runtime
BASE_IMAGE = "python:3.11-slim"
LABEL = "rstar.sandbox"
LABELS = {"pid": LABEL} | {name: f"{LABEL}.{name}" for name in ("started", "boot", "namespace")}  # by field of Owner
SOURCE_LABEL = "rstar.sandbox.source"
INSIDE = "/opt/rstar"
WORK = "/work"
USER = "65534:65534"
MEMORY_BYTES = 3 * 2**30  # of one container with all its interpreters
TMPFS_BYTES = 64 * 2**20  # counts towards the memory limit
SPARE_PROCESSES = 64  # in addition to the kept interpreters
FRAME = struct.Struct(">BxxxI")  # Docker's header before each chunk of an attached container's output


class DockerSandbox(Sandbox):
    """A Sandbox of containers. `runtime` names a runtime other than runc, such as gVisor's runsc."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        num_workers: int | None = None,
        runtime: str | None = None,
    ) -> None:
        launch = partial(ContainerLink.start, runtime=runtime)
        super().__init__(launch, limits=limits, num_workers=num_workers)
        self._runtime = runtime

    async def prepare(self) -> None:
        """Check the engine and the image, remove containers of killed runs, and start all containers at once."""
        await asyncio.to_thread(self._check)
        try:
            await asyncio.gather(*(server.start() for server in self._servers))
        except BaseException:
            await self.aclose()
            raise

    def _check(self) -> None:
        with engine() as client:
            remove_orphans(client)
            check_image(client, IMAGE)
            if self._runtime and self._runtime not in client.info().get("Runtimes", {}):
                raise UserError(
                    f"sandbox: the Docker engine has no runtime {self._runtime}; install gVisor and register it with "
                    f"`{self._runtime} install` (docs/sandbox.md), or ask for another provider"
                )

    def protections(self) -> str:
        return (
            f"Docker sandbox ({self._runtime or 'runc'}): steps run in containers without network, capabilities or "
            "new privileges, on a read-only root, as an unprivileged user, under a system call filter and limits on "
            "time, memory, processes, files and output. It does not protect against a flaw of the kernel"
            f"{'' if self._runtime else ', which the containers share with this machine (gVisor reduces that risk)'}, "
            "and a step can report a false result of its own."
        )


class ContainerLink:
    """A server in a container, reached through the container's attached standard input and output."""

    def __init__(self, container_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.container_id = container_id
        self._reader = reader
        self._writer = writer
        self._buffer = bytearray()
        self._log: deque[bytes] = deque(maxlen=20)
        self._ended = False
        self.isolation: dict[str, bool] = {}
        self.python = ""

    @classmethod
    async def start(cls, limits: Limits, *, runtime: str | None = None) -> ContainerLink:
        running = asyncio.get_running_loop().run_in_executor(None, run_container, limits, runtime)
        try:
            container_id, connection = await asyncio.shield(running)
            connection.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=connection, limit=MAX_LINE_BYTES)
        except BaseException:
            await asyncio.wait({running})  # the thread continues even if its caller is cancelled
            if not running.exception():
                container_id, connection = running.result()
                connection.close()
                await asyncio.to_thread(remove_container, container_id)
            raise
        link = cls(container_id, reader, writer)
        await hello(link)
        return link

    @property
    def pid(self) -> int | None:
        return None  # the process belongs to the engine

    @property
    def alive(self) -> bool:
        return not self._ended

    async def send(self, line: bytes) -> None:
        self._writer.write(line)
        await self._writer.drain()

    async def receive(self) -> bytes:
        while b"\n" not in self._buffer:
            try:
                stream, size = FRAME.unpack(await self._reader.readexactly(FRAME.size))
                data = await self._reader.readexactly(size)
            except (asyncio.IncompleteReadError, ConnectionError):
                self._ended = True
                return bytes(self._buffer)
            if stream == 1:
                self._buffer += data
            else:
                self._log.append(data)
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = rest
        return bytes(line) + b"\n"

    async def stop(self) -> None:
        self._ended = True
        self._writer.close()
        await asyncio.to_thread(remove_container, self.container_id)
        with suppress(OSError):
            await self._writer.wait_closed()

    def last_words(self) -> str:
        return b"".join(self._log).decode(errors="replace").strip()


class NoEngine(UserError):
    """No Docker engine answers."""


def engine() -> Any:
    """A client of the engine at DOCKER_HOST; raises NoEngine if none answers."""
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except (DockerException, OSError):
        place = os.environ.get("DOCKER_HOST", "its usual place")
        raise NoEngine(
            f"sandbox: no Docker engine answers at {place}; start one, set DOCKER_HOST, "
            'or choose the weaker sandbox: sandbox.provider = "local", --provider local'
        ) from None
    return _Closing(client)


class _Closing:
    """A client for a `with` block."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __enter__(self) -> Any:
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.close()


def run_container(limits: Limits, runtime: str | None) -> tuple[str, socket.socket]:
    """Start a container; return its id and the socket of its standard input and output."""
    with engine() as client:
        try:
            container = client.containers.create(IMAGE, **container_options(limits, runtime))
            try:
                attached = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
                connection = _own(attached)
                container.start()
            except BaseException:
                container.remove(force=True)
                raise
        except (APIError, OSError) as error:
            reason = getattr(error, "explanation", None) or error
            raise SandboxLost(f"the engine did not start a container: {' '.join(str(reason).split())[:200]}") from error
        return container.id, connection


def _own(attached: Any) -> socket.socket:
    """Take over the socket from the engine's client, which would leave it and its response open."""
    if not (hasattr(attached, "_sock") and hasattr(attached, "_response")):
        raise UserError("DOCKER_HOST: the sandbox talks to engines at unix:// and tcp:// addresses without TLS only")
    connection = socket.socket(fileno=os.dup(attached.fileno()))
    attached._sock.close()  # takes effect when the response is closed
    attached._response.close()
    return connection


def labels() -> dict[str, str]:
    """The labels that name this process as a container's owner."""
    owner = asdict(this_process())
    return {label: owner[name] for name, label in LABELS.items()}


def container_options(limits: Limits, runtime: str | None) -> dict[str, Any]:
    """The options of the container, as `docker run` would take them."""
    settings = json.dumps(asdict(limits))
    return {
        "command": ["python3", "-s", "-P", "-B", "-c", BOOT, INSIDE, WORK, settings, "container"],
        "environment": ENVIRONMENT | {"HOME": WORK, "TMPDIR": WORK},
        "labels": labels(),
        "runtime": runtime,
        "user": USER,
        "stdin_open": True,
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges", f"seccomp={seccomp_profile()}"],
        "ipc_mode": "none",
        "pids_limit": limits.num_checkpoints + SPARE_PROCESSES,
        "mem_limit": MEMORY_BYTES,
        "memswap_limit": MEMORY_BYTES,
        "nano_cpus": 10**9,
        "tmpfs": {
            # Owned by root and without read permission, so that a step can only find folders whose names it knows.
            WORK: f"size={TMPFS_BYTES},mode=1733,uid=0,gid=0,nosuid,nodev,noexec,nr_inodes=16384",
            "/dev/mqueue": "size=4k,mode=0555,uid=0,gid=0,ro,nosuid,nodev,noexec",  # replaces the engine's own
        },
        "ulimits": [Ulimit(name="core", soft=0, hard=0), Ulimit(name="nofile", soft=4096, hard=4096)],
        "log_config": LogConfig(type="none"),
        "hostname": "sandbox",
        "working_dir": WORK,
    }


@lru_cache(maxsize=1)
def seccomp_profile() -> str:
    return json.dumps(json.loads((HERE / "seccomp.json").read_text()))


def remove_container(container_id: str) -> None:
    with suppress(UserError, DockerException, OSError), engine() as client:  # the errors of `requests` are OSErrors
        client.api.remove_container(container_id, force=True, v=True)


def remove_orphans(client: Any) -> list[str]:
    """Remove the containers whose owner has ended, and return their ids.

    If the owner cannot be checked from here, remove the container only if it has ended itself.
    """
    removed = []
    for container in client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True):
        is_gone = Owner(**{name: container.labels.get(label, "") for name, label in LABELS.items()}).is_gone()
        if is_gone or (is_gone is None and container.status in ("exited", "dead")):
            with suppress(APIError):
                container.remove(force=True, v=True)
                removed.append(container.id)
    return removed


def check_image(client: Any, image: str) -> None:
    """Raise UserError if the image is missing, or was built from another version of the server."""
    try:
        labels = client.images.get(image).labels
    except ImageNotFound:
        raise UserError(f"sandbox: there is no image {image}; build it with `rstar sandbox build`") from None
    if labels.get(SOURCE_LABEL) != source_hash():
        raise UserError(f"sandbox: image {image} has the server of another version; run `rstar sandbox build` again")


def server_files() -> list[Path]:
    """The files that the image gets."""
    return [HERE / "__init__.py", *sorted((HERE / "inside").rglob("*.py"))]


def source_hash() -> str:
    """A hash of everything that the image is built from, except its base image."""
    digest = hashlib.sha256()
    for path in [*server_files(), *sorted(BUILD.iterdir())]:
        digest.update(str(path.relative_to(HERE.parent)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def build_image(*, base_image: str = BASE_IMAGE, say: Callable[[str], None] = lambda _: None) -> str:
    """Build the image and return its id. `say` receives each line of the build's output."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for path in BUILD.iterdir():
            archive.add(path, arcname=path.name)
        for path in server_files():
            archive.add(path, arcname=str(path.relative_to(HERE.parent)))
    context.seek(0)
    arguments = {"BASE_IMAGE": base_image, "SOURCE": source_hash()}
    with engine() as client:
        lines = client.api.build(
            fileobj=context, custom_context=True, tag=IMAGE, buildargs=arguments, rm=True, decode=True,
            network_mode="host",
        )  # fmt: skip
        for line in lines:
            if "error" in line:
                raise UserError(
                    f"sandbox: the image could not be built from {base_image or 'no image'}: "
                    f"{' '.join(line['error'].split())[:300]}; choose another base image with --base-image"
                )
            if text := str(line.get("stream", "")).strip():
                say(text)
        return str(client.images.get(IMAGE).id)
