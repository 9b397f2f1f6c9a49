"""The Docker provider: every fork server is the first process of a hardened container of its own.

No network, a read-only root, no capability, no new privilege, a system call filter stricter than Docker's, limits on
processes, memory and processor time, an unprivileged user, and one small tmpfs. See docs/sandbox.md.
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
GVISOR = "runsc"  # its runtime's name
BASE_IMAGE = "python:3.11-slim"
LABEL = "rstar.sandbox"
LABELS = {"pid": LABEL} | {name: f"{LABEL}.{name}" for name in ("started", "boot", "namespace")}  # its Owner
SOURCE_LABEL = "rstar.sandbox.source"
INSIDE = "/opt/rstar"
WORK = "/work"
USER = "65534:65534"
MEMORY_BYTES = 3 * 2**30  # of one container, all kept interpreters together
TMPFS_BYTES = 64 * 2**20  # counts as memory
SPARE_PROCESSES = 64  # beside the kept interpreters
FRAME = struct.Struct(">BxxxI")  # Docker's header before each piece of an attached container's output


class DockerSandbox(Sandbox):
    """A Sandbox of containers; `runtime` names another one than runc, such as gVisor's runsc."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        num_workers: int | None = None,
        fast_path: bool = True,
        image: str = IMAGE,
        runtime: str | None = None,
    ) -> None:
        launch = partial(ContainerLink.start, image=image, runtime=runtime)
        super().__init__(launch, limits=limits, num_workers=num_workers, fast_path=fast_path)
        self._image, self._runtime = image, runtime

    async def prepare(self) -> None:
        """Check engine and image, clear away what a killed run left, and start all containers at once."""
        await asyncio.to_thread(self._check)
        try:
            await asyncio.gather(*(server.start() for server in self._servers))
        except BaseException:
            await self.aclose()
            raise

    def _check(self) -> None:
        with engine() as client:
            remove_orphans(client)
            check_image(client, self._image)
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
            f"{'' if self._runtime else ', which the containers share with this machine (gVisor narrows that)'}; a "
            "step can lie about its own result."
        )


class ContainerLink:
    """A server that is the first process of a container, spoken to over its attached standard input and output."""

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
    async def start(cls, limits: Limits, *, image: str, runtime: str | None = None) -> ContainerLink:
        running = asyncio.get_running_loop().run_in_executor(None, run_container, limits, image, runtime)
        try:
            container_id, connection = await asyncio.shield(running)
            connection.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=connection, limit=MAX_LINE_BYTES)
        except BaseException:
            await asyncio.wait({running})  # the thread goes on where its caller is cancelled
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
        return None  # a process of the engine's, not of ours

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
    """A client of the engine that DOCKER_HOST names; NoEngine where none answers."""
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except (DockerException, OSError):
        place = os.environ.get("DOCKER_HOST", "its usual place")
        raise NoEngine(
            f"sandbox: no Docker engine answers at {place}; start one, set DOCKER_HOST, "
            'or ask for the weaker sandbox: sandbox.provider = "local", --provider local'
        ) from None
    return _Closing(client)


class _Closing:
    """A client to be used in a `with` block."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __enter__(self) -> Any:
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.close()


def run_container(limits: Limits, image: str, runtime: str | None) -> tuple[str, socket.socket]:
    """Start a container; return its id and the socket of its standard input and output."""
    with engine() as client:
        try:
            container = client.containers.create(image, **container_options(limits, runtime))
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
    """Take the socket from the engine's client, which leaves its own and the response it came with open."""
    if not (hasattr(attached, "_sock") and hasattr(attached, "_response")):
        raise UserError("DOCKER_HOST: the sandbox talks to engines at unix:// and tcp:// addresses without TLS only")
    connection = socket.socket(fileno=os.dup(attached.fileno()))
    attached._sock.close()  # in truth when the response is closed
    attached._response.close()
    return connection


def labels() -> dict[str, str]:
    """Who owns a container."""
    owner = asdict(this_process())
    return {label: owner[name] for name, label in LABELS.items()}


def container_options(limits: Limits, runtime: str | None) -> dict[str, Any]:
    """What `docker run` would be told."""
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
            # Root's, and not to be listed: a step finds no folder but those it knows by name.
            WORK: f"size={TMPFS_BYTES},mode=1733,uid=0,gid=0,nosuid,nodev,noexec,nr_inodes=16384",
            "/dev/mqueue": "size=4k,mode=0555,uid=0,gid=0,ro,nosuid,nodev,noexec",  # instead of the engine's own
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
    with suppress(UserError, DockerException, OSError), engine() as client:  # errors of requests are OSErrors
        client.api.remove_container(container_id, force=True, v=True)


def remove_orphans(client: Any) -> list[str]:
    """Remove the containers whose owner is gone, of other places those that have ended; return their ids."""
    removed = []
    for container in client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True):
        is_gone = Owner(**{name: container.labels.get(label, "") for name, label in LABELS.items()}).is_gone()
        if is_gone or (is_gone is None and container.status in ("exited", "dead")):
            with suppress(APIError):
                container.remove(force=True, v=True)
                removed.append(container.id)
    return removed


def check_image(client: Any, image: str) -> None:
    """A missing image, or one with another server than this package's, is a UserError."""
    try:
        labels = client.images.get(image).labels
    except ImageNotFound:
        raise UserError(f"sandbox: there is no image {image}; build it with `rstar sandbox build`") from None
    if labels.get(SOURCE_LABEL) != source_hash():
        raise UserError(f"sandbox: image {image} holds another version's server; run `rstar sandbox build` again")


def server_files() -> list[Path]:
    return [HERE / "__init__.py", *sorted((HERE / "inside").rglob("*.py"))]


def source_hash() -> str:
    digest = hashlib.sha256()
    for path in [*server_files(), *sorted(BUILD.iterdir())]:
        digest.update(str(path.relative_to(HERE.parent)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def build_image(
    *, base_image: str = BASE_IMAGE, image: str = IMAGE, say: Callable[[str], None] = lambda _: None
) -> str:
    """Build the image; `say` gets each line of the build. Return the image's id."""
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
            fileobj=context, custom_context=True, tag=image, buildargs=arguments, rm=True, decode=True,
            network_mode="host",
        )  # fmt: skip
        for line in lines:
            if "error" in line:
                raise UserError(
                    f"sandbox: the image was not built from {base_image or 'no image'}: "
                    f"{' '.join(line['error'].split())[:300]}; --base-image names another one, such as one that is here"
                )
            if text := str(line.get("stream", "")).strip():
                say(text)
        return str(client.images.get(image).id)
