"""The attack command reports an escape from an unprotected sandbox, and none from a container."""

from __future__ import annotations

from sandbox.attack import attack
from sandbox.container import DockerSandbox
from sandbox.limits import Limits
from sandbox.local import LocalSandbox
from sandbox.pool import Sandbox

LIMITS = Limits(seconds=2.0, guarded=False)
ROWS = [
    {"id": "reads", "code": "print(open('{CANARY_FILE}').read())"},
    {"id": "changes", "code": "open('{CANARY_FILE}', 'a').write('x')"},
    {"id": "is honest", "code": "print(1 + 1)"},
]


async def escapes(sandbox: Sandbox) -> dict[str, list[str]]:
    async with sandbox:
        return {tried.id: tried.escapes async for tried in attack(sandbox, ROWS)}


async def test_an_escape_from_an_unprotected_sandbox_is_reported() -> None:
    found = await escapes(LocalSandbox(limits=LIMITS, num_workers=1, fast_path=False, namespaces=False))
    assert found["reads"] == ["read the host's secret"]
    assert len(found["changes"]) == 1 and found["changes"][0].endswith("secret.txt")
    assert found["is honest"] == []


async def test_no_step_escapes_from_a_container(docker_image: str) -> None:
    found = await escapes(DockerSandbox(limits=LIMITS, num_workers=1))
    assert found == {"reads": [], "changes": [], "is honest": []}
