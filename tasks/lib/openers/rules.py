"""The rule-based writer of steps of the miniature world, in the place of a policy (recipe: bootstrap = "rules")."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from domains.protocol import Domain
from rstar.protocols import Policy
from tasks.lib.engines import Models


@asynccontextmanager
async def open_policy(models: Models, domain: Domain) -> AsyncIterator[Policy]:
    from miniature.writer import BootstrapPolicy

    yield BootstrapPolicy(seed=models.seed)
