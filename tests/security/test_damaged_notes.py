"""Notes and caches that only inform, damaged in every way: no stage is stopped by one, and no cost is wrong in silence."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from gkd_core.distill.token_cache import FOLDER as TOKENS
from gkd_core.distill.token_cache import TokenCache
from gkd_core.notes import ASIDE
from gkd_core.records import StudentSize
from gkd_core.settings import Settings
from gkd_core.stages import StageRun
from gkd_core.stages.work import attempt
from gkd_core.tracking.costs import damaged_notes, stage_metrics
from gkd_core.training.cost import FOLDER, LOST, ProcessCost, noting_cost, read_cost
from gkd_core.training.metrics import FILE, MetricsFollower, file_sink
from gkd_core.training.rank import Rank
from gkd_core.versioning.hashes import DATABASE, HASHES, LINKS, SoundRepo, share_hashes
from gkd_core.versioning.stage_lock import LOCKS, stage_lock
from gkd_core.versioning.workspace import IN_USE, SWEEPING, WORKSPACES, sweep_workspaces

RUN = StageRun("learn-task", "gta5", (), (), Path("artifacts/learn-task/gta5"))
NOTE = ProcessCost(
    role="stage", finished=False, seconds=10.0, cpu_seconds=4.0, gpu=False, peak_host_bytes=100, peak_gpu_bytes=0
)  # fmt: skip


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("something")


def a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def other_types(path: Path) -> None:
    path.write_text('{"role": ["stage"], "finished": "perhaps", "seconds": {}, "step": "x", "time": null, "parameters": []}\n')


def another_value(path: Path) -> None:
    path.write_text("[1, 2, 3]\nnull\n17\n")


def nothing_possible(path: Path) -> None:
    path.write_text(NOTE.model_dump_json().replace("10.0", "-10.0") + "\n")


def nested(path: Path) -> None:
    path.write_text("[" * 200_000 + "\n")


DAMAGES: list[Callable[[Path], None]] = [
    cut, emptied, binary, a_folder, a_loop, other_types, another_value, nothing_possible, nested,
]  # fmt: skip
damaged = pytest.mark.parametrize("damage", DAMAGES)


def an_attempt(run_folder: Path) -> None:
    """What a stage does with its run folder, without the work."""
    with attempt(run_folder, run_folder.parent / "output"):
        sink = file_sink(run_folder)
        for step in (10, 20, 30):
            sink(step, {"images_per_second": 10.0, "loss": 1.0})


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """That of a stage which was killed at its first attempt."""
    folder = tmp_path / "runs" / "stage-0123"
    NOTE.write(folder / FOLDER / "stage-1.json")
    file_sink(folder)(10, {"images_per_second": 10.0})
    (folder / "training.pt").write_text("state")
    return folder


def one_warning(caplog: pytest.LogCaptureFixture, *words: str) -> None:
    told = [record.getMessage() for record in caplog.records if all(word in record.getMessage() for word in words)]
    assert len(told) == 1 and "\n" not in told[0], [record.getMessage() for record in caplog.records]


@damaged
def test_a_note_of_costs(run_folder: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture) -> None:
    damage(run_folder / FOLDER / "stage-1.json")
    an_attempt(run_folder)
    cost = read_cost(run_folder)
    assert cost is not None and cost.lost == ("stage-1.json",)
    assert stage_metrics(RUN, run_folder, Settings()) == {}  # not the sum of what is left
    assert damaged_notes(run_folder) == ("stage-1.json",)
    one_warning(caplog, "stage-1.json", LOST)


@pytest.mark.parametrize("damage", [emptied, binary, a_loop])
def test_a_folder_of_costs_that_is_none(
    run_folder: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    (run_folder / FOLDER).rename(run_folder / "moved")
    (run_folder / FOLDER).touch()
    damage(run_folder / FOLDER)
    an_attempt(run_folder)
    assert damaged_notes(run_folder) == (FOLDER,)
    assert stage_metrics(RUN, run_folder, Settings()) == {}
    one_warning(caplog, FOLDER, LOST)


@damaged
def test_step_metrics(run_folder: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture) -> None:
    damage(run_folder / FILE)
    an_attempt(run_folder)
    assert [line["step"] for line in MetricsFollower(run_folder).read()][-3:] == [10, 20, 30]
    assert any(FILE in record.getMessage() for record in caplog.records) or damage is emptied
    metrics = stage_metrics(RUN, run_folder, Settings())
    known = damage not in (a_folder, a_loop)  # the steps were done again, so none of them is missing
    assert metrics.get("cost/images_per_second") == (10 if known else None)
    assert damaged_notes(run_folder) == (() if known else (FILE,))


@pytest.mark.parametrize("number", [1, 2])
def test_a_line_that_is_missing_leaves_no_wrong_speed(run_folder: Path, number: int) -> None:
    an_attempt(run_folder)
    lines = (run_folder / FILE).read_text().splitlines()
    kept = lines[1:]  # of the last attempt
    kept[number] = kept[number][:-9]
    (run_folder / FILE).write_text("\n".join(kept) + "\n")
    assert damaged_notes(run_folder) == (FILE,)
    assert stage_metrics(RUN, run_folder, Settings()) == {}


@damaged
def test_what_the_student_takes(run_folder: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture) -> None:
    path = run_folder / "student.json"
    StudentSize(parameters=5, flops=2.5, window=(8, 8), weights_bytes=20).write(path)
    an_attempt(run_folder)
    damage(path)
    assert stage_metrics(RUN, run_folder, Settings()) == {}
    assert damaged_notes(run_folder) == ("student.json",)
    one_warning(caplog, "student.json", LOST)


def test_what_was_set_aside_is_no_checkpoint_and_goes_with_its_account(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    an_attempt(folder)
    (next((folder / FOLDER).glob("*.json"))).write_text("{")
    assert damaged_notes(folder)
    an_attempt(folder)  # finished, and nothing to go on from: the next opens a new account
    an_attempt(folder)
    cost = read_cost(folder)
    assert cost is not None and (cost.attempts, cost.lost) == (1, ())


def test_a_disk_that_takes_no_note_does_not_end_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: ProcessCost, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ProcessCost, "write", full)
    with noting_cost(tmp_path):
        pass
    one_warning(caplog, "cannot be written (No space left on device)")


@damaged
def test_the_name_in_a_lock(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / LOCKS / f"{RUN.name}-0123"
    path.parent.mkdir(parents=True)
    path.write_text("another run")
    damage(path)
    with stage_lock(tmp_path, RUN, "0123", "this run"):
        assert path.read_text() == "this run"


@pytest.mark.parametrize("damage", [emptied, binary, a_folder, a_loop])
@pytest.mark.parametrize("mark", [IN_USE, SWEEPING])
def test_marks_of_workspaces(tmp_path: Path, damage: Callable[[Path], None], mark: str) -> None:
    workspace = tmp_path / WORKSPACES / "old"
    workspace.mkdir(parents=True)
    path = (workspace if mark == IN_USE else workspace.parent) / mark
    path.touch()
    damage(path)
    for place in (workspace, *workspace.iterdir()):
        os.utime(place, (0, 0), follow_symlinks=False)
    assert "old" in sweep_workspaces(tmp_path, keep=0, hours=0)
    assert not workspace.exists()


def tokens(folder: Path) -> TokenCache:
    return TokenCache(folder / TOKENS, "0123456789abcdef", 40, (2, 3), torch.bfloat16, 10**6)


@pytest.fixture
def cached(tmp_path: Path) -> TokenCache:
    cache = tokens(tmp_path)
    for number in cache.missing(Rank()):
        cache.write(number, torch.full((len(cache.block(number)), 2, 3), 1.5 + number))
    assert cache.done == cache.blocks == 2
    return cache


@pytest.mark.parametrize("suffix", ["tokens", "digests"])
@pytest.mark.parametrize("damage", [cut, emptied, binary, a_folder, a_loop])
def test_the_teachers_tokens(
    tmp_path: Path, cached: TokenCache, damage: Callable[[Path], None], suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    (path,) = (tmp_path / TOKENS).glob(f"*.{suffix}")
    damage(path)
    cache = tokens(tmp_path)
    missing = list(cache.missing(Rank()))
    assert missing  # computed again, rather than taken for what they are not
    for number in cache.missing(Rank()):
        cache.write(number, torch.full((len(cache.block(number)), 2, 3), 1.5 + number))
    assert tokens(tmp_path).done == 2
    assert cache.read(torch.tensor([0, 39])).flatten().unique().tolist() == [1.5, 2.5]


def test_a_flipped_bit_among_the_tokens_is_found(tmp_path: Path, cached: TokenCache, caplog: pytest.LogCaptureFixture) -> None:
    (path,) = (tmp_path / TOKENS).glob("*.tokens")
    content = bytearray(path.read_bytes())
    content[-1] ^= 4
    path.write_bytes(content)
    assert list(tokens(tmp_path).missing(Rank())) == [1]
    one_warning(caplog, "1 of 2 blocks are damaged; the teacher's tokens are computed again")


@pytest.mark.parametrize("damage", [cut, emptied, binary, a_folder])
@pytest.mark.parametrize("name", [HASHES, LINKS])
def test_dvcs_databases_of_digests(
    tmp_path: Path, damage: Callable[[Path], None], name: Path, caplog: pytest.LogCaptureFixture
) -> None:
    owner, workspace = tmp_path / "owner", tmp_path / "owner" / "workspace"
    (owner / ".dvc" / "cache").mkdir(parents=True)
    (owner / ".dvc" / "config").write_text(f"[core]\n    no_scm = true\n    site_cache_dir = {tmp_path}/site\n")
    (workspace / ".dvc").mkdir(parents=True)
    config = f"[core]\n    no_scm = true\n    site_cache_dir = {tmp_path}/own\n[cache]\n    dir = {owner}/.dvc/cache\n"
    (workspace / ".dvc" / "config").write_text(config)

    def use() -> Any:
        with SoundRepo(str(workspace)) as repo:
            share_hashes(repo)
            repo.state.hashes["/etc/hostname"] = "digest"
            return repo.state.hashes.get("/etc/hostname")

    assert use() == "digest"
    (folder,) = (path for path in (tmp_path / "site" / "repo").iterdir() if path.is_dir())
    with closing(sqlite3.connect(folder / name / DATABASE)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for log in (folder / name).glob(f"{DATABASE}-*"):
        log.unlink()
    damage(folder / name / DATABASE)
    assert use() == "digest"
    if damage is not emptied:  # which SQLite takes for a new one
        one_warning(caplog, f"{name.name}{ASIDE}", "digests of the data are computed again")
