"""The runs of a comparison: which there are, and what one that fails does to the others."""

from __future__ import annotations

import threading
import time

import pytest

from flows import compare
from flows.compare import Cell, cells, run_cells
from gkd_core.records import Score
from gkd_core.settings import load_settings


def _cell(seed: int) -> Cell:
    return Cell("no-kd", None, None, seed)


def _score(seed: int) -> Score:
    return Score.model_construct(seed=seed)


@pytest.fixture(autouse=True)
def _no_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    monkeypatch.setattr(compare, "get_run_logger", lambda: logging.getLogger("test"))


def test_every_combination_is_run_once_the_teacher_first_for_each_share_of_labels() -> None:
    wanted = cells(["no-kd", "gkd"], ["a@x", "b@y"], [1.0, 0.5], [3, 4])
    assert wanted[:2] == [Cell("teacher", None, 1.0, 3), Cell("teacher", None, 0.5, 3)]
    rest = {(cell.method, cell.student, cell.label_fraction, cell.seed) for cell in wanted[2:]}
    assert len(wanted) == 2 + 2 * 2 * 2 * 2 == 2 + len(rest)


def test_without_students_and_shares_those_of_the_settings_count() -> None:
    assert cells(["gkd"], [], [], [0]) == [Cell("teacher", None, None, 0), Cell("gkd", None, None, 0)]


def test_a_cell_is_what_its_overrides_make_of_the_settings() -> None:
    cell = Cell("two-stage-mse", "vit_small_patch16_224@models:/student@champion", 0.125, 7)
    settings = load_settings(None, "demo", cell.overrides)
    assert (settings.method, settings.seed, settings.learn_task.label_fraction) == ("two-stage-mse", 7, 0.125)
    assert (settings.student.arch, settings.student.weights) == ("vit_small_patch16_224", "models:/student@champion")


@pytest.mark.parametrize("at_once", [1, 3])
def test_one_that_fails_leaves_the_others(at_once: int) -> None:
    def run(cell: Cell) -> list[Score]:
        if cell.seed == 1:
            raise ValueError("no such thing")
        time.sleep(0.02 * (3 - cell.seed))  # the later end first
        return [_score(cell.seed)]

    scores, failed = run_cells([_cell(seed) for seed in range(4)], run, at_once)
    assert [score.seed for score in scores] == [0, 2, 3]
    assert list(failed) == [_cell(1)] and str(failed[_cell(1)]) == "no such thing"


def test_so_many_run_side_by_side_and_no_more() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def run(cell: Cell) -> list[Score]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.1)
        with lock:
            running -= 1
        return []

    run_cells([_cell(seed) for seed in range(6)], run, 2)
    assert most == 2
