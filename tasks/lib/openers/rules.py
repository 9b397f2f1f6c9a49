"""The rule-based policy of the miniature world (recipe: model.bootstrap = "rules")."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from domains.protocol import Domain
from rstar.protocols import Policy
from tasks.lib.engines import Models


@asynccontextmanager
async def open_policy(models: Models, domain: Domain) -> AsyncIterator[Policy]:
    """Create the rule-based policy."""
    from miniature.writer import BootstrapPolicy

    yield BootstrapPolicy(seed=models.seed)
