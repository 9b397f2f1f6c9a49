"""The Docker image that the tests of the Docker provider need."""

from __future__ import annotations

import os

import pytest

from rstar.protocols import UserError
from sandbox.container import BASE_IMAGE, IMAGE, build_image, check_image, engine


@pytest.fixture(scope="session")
def docker_image() -> str:
    """The image, built if necessary. Without an engine the test is skipped, or fails if RSTAR_REQUIRE_DOCKER is set."""
    required = os.environ.get("RSTAR_REQUIRE_DOCKER")
    try:
        with engine() as client:
            try:
                check_image(client, IMAGE)
            except UserError:
                build_image(base_image=os.environ.get("RSTAR_BASE_IMAGE", BASE_IMAGE))
    except UserError as error:
        if required:
            raise
        pytest.skip(str(error))
    return IMAGE
