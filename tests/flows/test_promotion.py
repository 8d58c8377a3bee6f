"""The transaction around a promotion, on a registry of SQLite; the steps after it are made to fail."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import promotion
from gkd_core.errors import PlatformError
from gkd_core.registry.champions import Champions
from gkd_core.registry.gate import Verdict
from gkd_core.registry.versions import Registry
from gkd_core.settings import Settings
from gkd_core.storage.mlflow_store import CHAMPION
from gkd_core.tracking.flow_runs import Tracking

NAME = "gkd-student-toy"
BETTER = Verdict(decision="better", challenger="new", champion="old", reasons=("it is better",), domains=())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Champions:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking = Tracking(Settings(), tmp_path_factory.mktemp("project"))
    return Champions(Registry(tracking.client, tracking.address))


@pytest.fixture
def champions(store: Champions, monkeypatch: pytest.MonkeyPatch) -> Iterator[Champions]:
    """Two versions, the first of them champion; every step after a promotion does nothing."""
    client = store.registry.client
    client.create_registered_model(NAME)
    for number in (1, 2):
        client.create_model_version(NAME, f"file:///nowhere/{number}")
    store.promote(NAME, "1", "me", "first")
    monkeypatch.setattr(promotion, "get_run_logger", lambda: logging.getLogger("promotion"))
    for step in ("_check", "_publish"):
        monkeypatch.setattr(promotion, step, lambda *arguments: None)
    yield store
    client.delete_registered_model(NAME)


def _broken(error: BaseException) -> Any:
    def step(*arguments: object) -> None:
        raise error

    return step


def test_a_promotion_that_goes_well_stands(champions: Champions, tmp_path: Path) -> None:
    promotion.promote(champions, NAME, "2", "flow run x", BETTER, tmp_path)
    assert champions.registry.aliases(NAME) == {CHAMPION: "2"}
    last = champions.history(NAME)[-1]
    assert (last.kind, last.before, last.after, last.by, last.why) == ("promote", "1", "2", "flow run x", "it is better")
    assert champions.open_promotion(NAME) is None


@pytest.mark.parametrize("step", ["_check", "_publish"])
@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_whatever_stops_it_afterwards_gives_the_old_champion_back(
    champions: Champions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    seen: list[str] = []

    def fail(*arguments: object) -> None:
        seen.append(champions.registry.aliases(NAME)[CHAMPION])
        raise error

    monkeypatch.setattr(promotion, step, fail)
    with pytest.raises(type(error)):
        promotion.promote(champions, NAME, "2", "flow run x", BETTER, tmp_path)
    assert seen == ["2"], "it was promoted when the step began"
    assert champions.registry.aliases(NAME) == {CHAMPION: "1"}
    assert [move.kind for move in champions.history(NAME)] == ["promote", "undo"]
    assert champions.open_promotion(NAME) is None
    with pytest.raises(PlatformError, match="no champion before"):
        champions.rollback(NAME, "me", "what was undone is no step of the history")


def test_writing_it_down_is_part_of_the_transaction(
    champions: Champions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Champions, "_record", _fail_once(Champions._record))
    with pytest.raises(ConnectionError):
        promotion.promote(champions, NAME, "2", "flow run x", BETTER, tmp_path)
    assert champions.registry.aliases(NAME) == {CHAMPION: "1"}


def _fail_once(method: Any) -> Any:
    calls: list[int] = []

    def wrapped(*arguments: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError("the store is gone")
        method(*arguments)

    return wrapped


def test_a_promotion_that_cannot_be_taken_back_is_told_and_mended_by_rollback(
    champions: Champions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "_check", _broken(RuntimeError("does not load")))
    with monkeypatch.context() as store_gone:
        store_gone.setattr(Champions, "undo", _broken(ConnectionError("the store is gone")))
        with pytest.raises(PlatformError, match=r"does not load.*still points at version 2 instead of 1.*registry rollback"):
            promotion.promote(champions, NAME, "2", "flow run x", BETTER, tmp_path)
    assert champions.rollback(NAME, "me", "mend").after == "1"
    assert champions.registry.aliases(NAME) == {CHAMPION: "1"}


def test_artifact_keys_are_as_prefect_allows_them() -> None:
    assert promotion.artifact_key("gate", "gkd-student-Potsdam_rgb.v2") == "gate-gkd-student-potsdam-rgb-v2"
