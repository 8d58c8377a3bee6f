"""Many flow runs queued at once on the whole platform: each runs once, never more at once than allowed, nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.load.databases import SqliteFiles
from benchmarks.load.measure import measure

RUNS, LIMIT = 24, 4


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_flow_runs(tmp_path: Path) -> None:
    outcome = measure(tmp_path, RUNS, LIMIT, SqliteFiles(tmp_path), say=print)
    assert outcome.findings == []
    assert outcome.figures is not None
    assert outcome.figures.runs == RUNS
    assert outcome.figures.most_at_once == LIMIT, "they hardly ran side by side, which proves little"
    assert all(held.peak > 0 for held in outcome.use.memory.values())
