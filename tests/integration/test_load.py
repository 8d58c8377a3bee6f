"""Many flow runs queued at once on the whole platform: each runs once, never more at once than allowed, nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.load.databases import Databases, PostgresDatabases, SqliteFiles
from benchmarks.load.measure import measure
from gkd_core.operations.postgres import VARIABLE, database_named
from tests.integration.postgres import postgres_or_skip

LIMIT = 4
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_many_flow_runs(tmp_path: Path) -> None:
    with postgres_or_skip() as server:
        named = database_named({VARIABLE: server.address_with_password})
        assert named is not None
        _measure(tmp_path, PostgresDatabases(named), 24)


def test_as_many_as_sqlite_bears(tmp_path: Path) -> None:
    _measure(tmp_path, SqliteFiles(tmp_path), 8)


def _measure(project: Path, databases: Databases, runs: int) -> None:
    outcome = measure(project, runs, LIMIT, databases, say=print)
    assert outcome.findings == []
    assert outcome.figures is not None
    assert outcome.figures.runs == runs
    assert outcome.figures.most_at_once == LIMIT, "they hardly ran side by side, which proves little"
    assert all(held.peak > 0 for held in outcome.use.memory.values())
