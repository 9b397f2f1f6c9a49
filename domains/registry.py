"""The domains by name. A new domain needs its own folder and a line in this table."""

from __future__ import annotations

from importlib import import_module

from domains.protocol import Domain
from rstar.protocols import UserError

DOMAINS = {
    "mathematics": "domains.mathematics.domain",
    "programs": "domains.programs.domain",
}


def find_domain(name: str) -> Domain:
    """Load a domain: the DOMAIN of its module. Raises UserError for an unknown name."""
    if name not in DOMAINS:
        raise UserError(f"domain: got {name!r}; allowed: {', '.join(DOMAINS)}")
    domain: Domain = import_module(DOMAINS[name]).DOMAIN
    return domain
