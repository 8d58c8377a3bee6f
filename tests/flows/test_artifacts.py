"""What a run shows in Prefect, and that showing it never fails the run."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import artifacts
from flows.artifacts import describe, duration, key_of, places, run_page, show_page, stage_progress
from gkd_core.stages.length import Length
from gkd_core.training.metrics import file_sink

LOG = logging.getLogger("test")
UPDATES = Length(200, "updates")


def _tracking(address: str) -> Any:
    metrics = {"cost/seconds": 12.0, "miou/mean_targets": 40.0}
    run = SimpleNamespace(data=SimpleNamespace(metrics=metrics))
    return SimpleNamespace(address=address, experiment="7", client=SimpleNamespace(get_run=lambda run_id: run))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """What would be sent to the server, in order."""
    sent: list[tuple[float, str]] = []

    def create(progress: float, key: str, description: str) -> str:
        assert re.fullmatch(r"[a-z0-9-]+", key)
        sent.append((progress, description))
        return "12345678-1234-5678-1234-567812345678"

    monkeypatch.setattr(artifacts, "create_progress_artifact", create)
    monkeypatch.setattr(artifacts, "update_progress_artifact", lambda artifact, percent, text: sent.append((percent, text)))
    return sent


def test_a_stage_says_step_total_rate_time_left_and_loss() -> None:
    first, last = {"step": 10, "time": 100.0, "loss": 2.0}, {"step": 50, "time": 120.0, "loss": 1.25}
    assert describe(UPDATES, first, last) == "50 of 200 updates, 2 updates/s, 75 s left, loss 1.25"
    assert describe(UPDATES, last, last) == "50 of 200 updates, loss 1.25"
    assert describe(Length(8, "images"), {"step": 2, "time": 0.0}, {"step": 4, "time": 4.0, "domains": 1.0}) == (
        "4 of 8 images, 0.5 images/s, 8 s left, 1 domains done"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (600, "10 min"), (7190, "2 h 0 min"), (12_000, "3 h 20 min")]
)
def test_durations_are_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_progress_follows_the_run_folder_and_ends_at_a_hundred(tmp_path: Path, shown: list[tuple[float, str]]) -> None:
    with stage_progress("learn-task-gta5", UPDATES, tmp_path, LOG):
        file_sink(tmp_path)(50, {"loss": 1.5})
    assert shown[0] == (25.0, "learn-task-gta5: 50 of 200 updates, loss 1.5")
    assert shown[-1][0] == 100.0
    assert shown[-1][1].startswith("learn-task-gta5: done: 200 updates in ")


def test_lines_of_an_earlier_attempt_are_not_shown(tmp_path: Path, shown: list[tuple[float, str]]) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 190, "time": 5.0, "loss": 9.0}\n')
    with stage_progress("evaluate-gta5", UPDATES, tmp_path, LOG):
        file_sink(tmp_path)(20, {"loss": 1.0})
    assert shown[0][0] == 10.0


def test_a_stage_that_fails_is_not_said_to_be_done(tmp_path: Path, shown: list[tuple[float, str]]) -> None:
    with pytest.raises(ValueError, match="broken"), stage_progress("a", UPDATES, tmp_path, LOG):
        raise ValueError("broken")
    assert shown == []


def test_a_server_that_does_not_answer_is_told_of_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise ConnectionError("no server here")

    monkeypatch.setattr(artifacts, "create_progress_artifact", refuse)
    monkeypatch.setattr(artifacts, "create_markdown_artifact", refuse)
    with stage_progress("a", UPDATES, tmp_path, LOG):
        file_sink(tmp_path)(20, {"loss": 1.0})
    show_page("summary", lambda: "# text", LOG)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    assert all("no server here" in record.getMessage() for record in caplog.records)


def test_the_page_has_the_matrix_the_stages_the_cost_and_links() -> None:
    stages = {"prepare-data": ("restored", 1.2), "learn-task-gta5": ("ran", 300.0)}
    page = run_page("# Matrix\n", stages, Path("/p/report"), _tracking("http://127.0.0.1:5000"), "abc")
    assert page.startswith("# Matrix\n")
    assert "| learn-task-gta5 | ran | 5 min |" in page and "| prepare-data | restored | 1 s |" in page
    assert "| seconds | 12 |" in page and "mean_targets" not in page
    assert "http://127.0.0.1:5000/#/experiments/7/runs/abc" in page and "`/p/report`" in page


def test_without_a_server_the_page_says_the_command() -> None:
    assert "mlflow ui --backend-store-uri sqlite:///m.db" in "\n".join(places(None, _tracking("sqlite:///m.db"), "abc"))


def test_keys_are_as_prefect_takes_them() -> None:
    assert key_of("progress-learn-task-Potsdam_RGB+x") == "progress-learn-task-potsdam-rgb-x"
