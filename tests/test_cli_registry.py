"""The commands `gkd registry …` on a store of SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gkd_core.cli import app
from gkd_core.errors import GkdError
from gkd_core.registry.champions import Champions
from gkd_core.registry.versions import Registry
from gkd_core.settings import Settings
from gkd_core.storage.mlflow_store import CHAMPION
from gkd_core.tracking.flow_runs import Tracking

NAME = "gkd-student-toy"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Champions]:
    """A project with two versions that have been champion one after the other."""
    project = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking = Tracking(Settings(), project)
    tracking.client.create_registered_model(NAME)
    champions = Champions(Registry(tracking.client, tracking.address))
    for number in ("1", "2"):
        tags = {"method": "gkd", "seed": number, "miou.targets": f"5{number}.00", "miou.validation": "80.00"}
        tracking.client.create_model_version(NAME, f"file:///nowhere/{number}", tags=tags)
        champions.promote(NAME, number, "flow run x", "better than before")
    return project, champions


@pytest.fixture(autouse=True)
def _in_project(store: tuple[Path, Champions], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(store[0])


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["registry", *arguments])


def test_list_shows_versions_aliases_and_scores() -> None:
    lines = _run("list").output.splitlines()
    assert lines[0].split() == ["model", "version", "aliases", "method", "seed", "targets", "source", "gate", "age"]
    assert lines[1].split()[:6] == [NAME, "1", "gkd", "1", "51.00", "80.00"]
    assert lines[2].split()[:5] == [NAME, "2", "@champion", "gkd", "2"]
    assert "no student other-… is registered in sqlite" in _run("list", "--set", "registry.name=other").output


def test_rollback_is_one_command_and_on_record(store: tuple[Path, Champions]) -> None:
    assert _run("rollback", NAME, "--reason", "fog").output == f"{NAME}: @champion is version 1 again (was 2)\n"
    assert store[1].registry.aliases(NAME) == {CHAMPION: "1"}
    shown = _run("history", NAME).output.splitlines()
    assert [line.split()[2] for line in shown[1:]] == ["promote", "promote", "rollback"]
    assert shown[-1].split()[-1] == "fog"
    failed = _run("rollback", NAME)
    assert isinstance(failed.exception, GkdError) and "no champion before this one" in str(failed.exception)
    store[1].promote(NAME, "2", "test", "as it was")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("card", f"{NAME}@nobody"), "no version nobody in sqlite"),
        (("card", f"{NAME}/2"), "version 2: registered by another program, so nothing is known of it"),
        (("gate", NAME), "no version challenger"),
        (("promote", NAME, "9", "--reason", "x"), "no version 9 in sqlite"),
        (("promote", NAME, "1", "--reason", "x"), "version 1: registered by another program"),
        (("rollback", "gkd-student-moon"), "gkd-student-moon: no such registered model"),
        (("register", "0123"), "run 0123: not in the MLflow store sqlite"),
    ],
)
def test_what_cannot_be_done_is_one_line_that_says_so(
    arguments: tuple[str, ...], words: str, store: tuple[Path, Champions]
) -> None:
    failed = _run(*arguments)
    assert isinstance(failed.exception, GkdError) and words in str(failed.exception)
    assert "\n" not in str(failed.exception)
    assert store[1].registry.aliases(NAME) == {CHAMPION: "2"}


def test_promotion_by_hand_asks_for_a_reason() -> None:
    done = _run("promote", NAME, "1")
    assert done.exit_code == 2 and "--reason" in done.output
