"""Engines for the task tests: the rule-based policy with the local sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tasks.lib.engines import RULES, Engines, Models, SandboxSettings, open_engines


@pytest.fixture
async def engines() -> AsyncIterator[Engines]:
    async with open_engines(Models(RULES), SandboxSettings("local")) as rule_based:
        yield rule_based
