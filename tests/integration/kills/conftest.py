"""A project in a folder of its own, and the platform that runs its flows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.server import prefect_server
from tests.integration.kills.orchestration import Platform, link_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    link_project(folder)
    return folder


@pytest.fixture(scope="module")
def platform(project: Path) -> Iterator[Platform]:
    with prefect_server(project) as server:
        server.wait()
        platform = Platform(project, server)
        platform.deploy()
        platform.start_worker()
        yield platform
        platform.stop()
