"""Commands killed by SIGKILL at their steps: the same command goes on, and nothing half-written is left."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from gkd_core.data.preparing.tar import find_tar, write_tar
from gkd_core.data.world.writer import write_world
from gkd_core.errors import DataError, PlatformError
from gkd_core.files import atomic_file, is_temporary, scratch_folder
from gkd_core.models.tensor_files import write_tensors
from gkd_core.operations.backup import databases
from gkd_core.operations.backup.backup_store import BackupStore, open_backup_store
from gkd_core.operations.backup.make import back_up
from gkd_core.operations.backup.restore import restore
from gkd_core.operations.backup.sqlite import FILES
from gkd_core.operations.backup.stores import ARTIFACT_FOLDER, stores_of
from gkd_core.settings import WorldSettings
from gkd_core.stages.work import attempt
from gkd_core.storage.client import connect
from gkd_core.storage.keys import Location
from gkd_core.storage.trees import download_tree, upload_tree
from gkd_core.training.checkpoint import FolderStore
from tests.platform_memory import REVISION, contents, memory, write, write_artifacts
from tests.s3_store import s3_bucket
from tests.security.kills import killed_before_step, steps_of

POINTS = 25  # of a longer piece of work, that many steps, evenly spread


@pytest.fixture(autouse=True)
def _own_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's temporary files are ours too: what is left there is looked for."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    monkeypatch.delenv("GKD_DATABASE_URL", raising=False)
    monkeypatch.setattr(databases, "known_revisions", lambda database, kind: {REVISION})


def points(total: int) -> list[int]:
    if total <= POINTS:
        return list(range(1, total + 1))
    return [1 + number * (total - 1) // (POINTS - 1) for number in range(POINTS)]


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if is_temporary(path.name)]


def survives(work: Callable[[], object], begin_anew: Callable[[], object], tmp_path: Path, check: Callable[[], object]) -> None:
    """Kill work at each of its points, from a fresh start; done again, it ends well and leaves nothing half-written."""
    begin_anew()
    total = steps_of(work, tmp_path)
    assert total > 3
    killed = 0
    for point in points(total):
        begin_anew()
        killed += killed_before_step(point, work)
        work()
        check()
        assert leftovers(tmp_path) == [], f"killed before step {point} of {total}"
    assert killed > len(points(total)) // 2  # threads share the steps out anew each time, so the last may not come


def words_of(file: Path, count: int) -> list[str]:
    return [f"{file.name} {number}" for number in range(count)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for file in FILES.values():
        write(folder / file, words_of(file, 500))
    write_artifacts(folder, "1/run/model", "1/run/report/matrix.json", "2/.hidden")
    return folder


@pytest.fixture
def backup_store(tmp_path: Path) -> BackupStore:
    return open_backup_store(str(tmp_path / "backups"))


def put_back(project: Path, backup_store: BackupStore, replace: bool = False) -> None:
    list(restore(stores_of(project, ()), backup_store, backup_store.read(backup_store.newest()), replace))


def test_a_restore_goes_on_with_the_same_command(project: Path, backup_store: BackupStore, tmp_path: Path) -> None:
    before = memory(project)
    list(back_up(stores_of(project, ()), backup_store))

    def check() -> None:
        assert memory(project) == before

    survives(lambda: put_back(project, backup_store), lambda: shutil.rmtree(project / "artifacts"), tmp_path, check)


def test_a_restore_over_what_is_there_goes_on_too(project: Path, backup_store: BackupStore, tmp_path: Path) -> None:
    before = memory(project)
    list(back_up(stores_of(project, ()), backup_store))

    def change() -> None:
        for file in FILES.values():
            write(project / file, words_of(file, 1))
        (project / ARTIFACT_FOLDER / "1/run/model").write_text("another")

    def check() -> None:
        assert memory(project) == before

    survives(lambda: put_back(project, backup_store, replace=True), change, tmp_path, check)


def test_what_is_whole_is_not_copied_again(project: Path, backup_store: BackupStore) -> None:
    list(back_up(stores_of(project, ()), backup_store))
    shutil.rmtree(project / "artifacts")
    put_back(project, backup_store)
    inodes = {path: path.stat().st_ino for path in (project / ARTIFACT_FOLDER).rglob("*") if path.is_file()}
    (project / FILES["gkd_prefect"]).unlink()  # as if killed between the two databases
    parts = list(restore(stores_of(project, ()), backup_store, backup_store.read(backup_store.newest()), False))
    assert [part.copied for part in parts] == [0, 0, 1]
    assert {path: path.stat().st_ino for path in inodes} == inodes


def test_what_is_foreign_is_refused_all_the_same(project: Path, backup_store: BackupStore) -> None:
    list(back_up(stores_of(project, ()), backup_store))
    shutil.rmtree(project / "artifacts")
    root = project / ARTIFACT_FOLDER
    root.mkdir(parents=True)
    for name in (".model.gkd-short", ".model.abcdefgh", "model.gkd-0123456789ab", ".other.part"):
        (root / name).write_text("foreign")
        with pytest.raises(DataError, match=f"not empty: 1 files are not the backup's, such as {name}"):
            put_back(project, backup_store)
        assert (root / name).read_text() == "foreign"
        (root / name).unlink()
    (root / ".model.gkd-0123456789ab").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match="no regular file"):
        put_back(project, backup_store)
    (root / ".model.gkd-0123456789ab").unlink()
    write(project / FILES["gkd_mlflow"], words_of(FILES["gkd_mlflow"], 500))
    with closing(sqlite3.connect(project / FILES["gkd_mlflow"])) as connection, connection:
        connection.execute("UPDATE notes SET word = 'written since' WHERE word LIKE '% 7'")
    with pytest.raises(PlatformError, match="not empty"):
        put_back(project, backup_store)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_temporary_of_another_user_is_foreign(project: Path, backup_store: BackupStore) -> None:
    list(back_up(stores_of(project, ()), backup_store))
    shutil.rmtree(project / "artifacts")
    path = project / ARTIFACT_FOLDER / ".model.gkd-0123456789ab"
    path.parent.mkdir(parents=True)
    path.write_text("of another user")
    os.chown(path, 12345, 12345)
    with pytest.raises(DataError, match="not empty: 1 files"):
        put_back(project, backup_store)
    assert path.exists()


def test_a_backup_goes_on_and_leaves_nothing_in_its_place(project: Path, backup_store: BackupStore, tmp_path: Path) -> None:
    before = memory(project)

    def anew() -> None:
        shutil.rmtree(tmp_path / "backups")
        (tmp_path / "backups").mkdir()

    def check() -> None:
        found = open_backup_store(str(tmp_path / "backups"))
        found.read(found.newest())

    survives(lambda: list(back_up(stores_of(project, ()), backup_store)), anew, tmp_path, check)
    shutil.rmtree(project / "artifacts")
    put_back(project, backup_store)
    assert memory(project) == before


def test_leftovers_are_in_no_backup(project: Path, backup_store: BackupStore) -> None:
    left = project / ARTIFACT_FOLDER / "1/run/.model.gkd-0123456789ab"
    left.write_text("half")
    list(back_up(stores_of(project, ()), backup_store))
    (tree,) = backup_store.read(backup_store.newest()).trees
    assert left.name not in {Path(file.name).name for file in tree.files}


@pytest.fixture
def store() -> Iterator[None]:
    with s3_bucket("place", "secret"):
        yield


@pytest.mark.usefixtures("store")
def test_transfers_of_folders_go_on(tmp_path: Path) -> None:
    origin, target, place = tmp_path / "origin", tmp_path / "target", Location.parse("s3://place/tree")
    for number in range(5):
        (origin / f"{number % 2}").mkdir(parents=True, exist_ok=True)
        (origin / f"{number % 2}/{number}.bin").write_bytes(bytes([number]) * 1000)
    (origin / "0/.0.bin.gkd-0123456789ab.bin").write_text("left by a killed writer")
    expected = {name: content for name, content in contents(origin).items() if ".gkd-" not in name}
    upload_tree(connect(), origin, place)
    shutil.rmtree(origin)

    def check() -> None:
        assert contents(target) == expected

    survives(lambda: download_tree(connect(), place, target), lambda: shutil.rmtree(target, ignore_errors=True), tmp_path, check)


def test_a_rendered_world_is_whole_or_absent(tmp_path: Path) -> None:
    settings = WorldSettings(
        street_size=(32, 64), aerial_size=(32, 32), proxy_images=1, train_images=1, val_images=1, target_images=1
    )  # fmt: skip
    root = tmp_path / "world"
    write_world(settings, root)
    whole = contents(root)

    def check() -> None:
        assert contents(root) == whole

    survives(lambda: write_world(settings, root), lambda: shutil.rmtree(root), tmp_path, check)


def test_weights_and_shards_are_whole_or_absent(tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def work() -> None:
        write_tensors({"w": torch.arange(10.0)}, folder / "encoder.safetensors")
        if find_tar(folder, "part") is None:
            write_tar(folder, "part", [("a.txt", b"a" * 3000)])
        with scratch_folder("test") as scratch:
            (scratch / "content").write_text("thrown away")

    folder.mkdir()
    work()
    whole = contents(folder)

    def anew() -> None:
        shutil.rmtree(folder)
        folder.mkdir()

    def check() -> None:
        assert {name: content for name, content in contents(folder).items() if name != ".part.tar"} == whole

    survives(work, anew, tmp_path, check)


def test_a_stage_sweeps_what_its_killed_attempts_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_folder, output = tmp_path / "runs" / "stage-0123", tmp_path / "artifacts" / "stage"
    output.mkdir(parents=True)

    def save() -> None:
        FolderStore(run_folder).save({"step": 1, "model": {"w": torch.zeros(3)}, "optimizer": {}, "scaler": {}})

    points_left = 0
    for point in points(steps_of(save, tmp_path)):
        killed_before_step(point, save)
        points_left += bool(leftovers(run_folder))
        with attempt(run_folder, output):
            assert leftovers(tmp_path) == []
    assert points_left, "none was killed while it wrote"
    assert any("leftovers of killed attempts, such as .training.pt.gkd-" in record.getMessage() for record in caplog.records)


def test_what_another_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with atomic_file(run_folder / "training.pt") as temporary:
                temporary.write_text("whole")
                os.write(ready[1], b".")
                os.read(go[0], 1)
        finally:
            os._exit(0)
    os.read(ready[0], 1)
    (run_folder / ".training.pt.x1y2z3w4.pt").write_text("left by an older version")
    with attempt(run_folder, tmp_path / "out"):
        assert len(leftovers(run_folder)) == 1
        assert not (run_folder / ".training.pt.x1y2z3w4.pt").exists()
        os.write(go[1], b".")
        os.waitpid(child, 0)
    assert (run_folder / "training.pt").read_text() == "whole"
    for descriptor in (*ready, *go):
        os.close(descriptor)
