"""Backups of the local platform on SQLite, to a folder: made, destroyed, restored, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from gkd_core.cli.app import app
from gkd_core.errors import DataError, GkdError, PlatformError, TransientError
from gkd_core.operations.backup import databases, make, retention
from gkd_core.operations.backup.backup_store import BackupStore, open_backup_store
from gkd_core.operations.backup.make import Part, back_up
from gkd_core.operations.backup.manifest import Backup, decode
from gkd_core.operations.backup.restore import restore
from gkd_core.operations.backup.retention import Pruned
from gkd_core.operations.backup.seal import key_file, seal
from gkd_core.operations.backup.sqlite import FILES
from gkd_core.operations.backup.stores import ARTIFACT_FOLDER, stores_of
from gkd_core.system.platform_state import PlatformState, ProcessMark
from tests.platform_memory import REVISION, memory, write, write_artifacts


@pytest.fixture(autouse=True)
def _schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's and MLflow's own take seconds to read; tests/integration/test_backup.py does."""
    monkeypatch.setattr(databases, "known_revisions", lambda database, kind: {REVISION})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose platform has remembered something."""
    monkeypatch.delenv("GKD_DATABASE_URL", raising=False)
    monkeypatch.setenv("GKD_BACKUP_KEY_FILE", str(tmp_path / "backup.key"))
    folder = tmp_path / "project"
    for name, file in FILES.items():
        write(folder / file, [name])
    write_artifacts(folder, "1/run/model", "1/run/report/matrix.json")
    return folder


@pytest.fixture
def backup_store(tmp_path: Path) -> BackupStore:
    return open_backup_store(str(tmp_path / "backups"))


def destroy(project: Path) -> None:
    for path in [*(project / "artifacts").rglob("*")]:
        if path.is_file():
            path.unlink()


def run(project: Path, backup_store: BackupStore) -> tuple[str, list[Part]]:
    """A backup's name, and its parts."""
    *parts, name = back_up(stores_of(project, ()), backup_store)
    assert isinstance(name, str)
    seal(backup_store, name, key_file())
    return name, [part for part in parts if isinstance(part, Part)]


def prune(backup_store: BackupStore, keep: int) -> Pruned:
    return retention.prune(backup_store, keep, key_file())


def put_back(project: Path, backup_store: BackupStore, name: str | None = None, replace: bool = False) -> list[Part]:
    return list(restore(stores_of(project, ()), backup_store, backup_store.read(name or backup_store.newest()), replace))


def contents(backup_store: BackupStore) -> list[Path]:
    return sorted(path for path in Path(str(backup_store)).glob("content/*/*"))


def test_what_was_destroyed_is_as_it_was(project: Path, backup_store: BackupStore) -> None:
    before = memory(project)
    run(project, backup_store)
    destroy(project)
    parts = put_back(project, backup_store)
    assert memory(project) == before
    assert [(Path(part.name).name, part.files, part.copied) for part in parts] == [
        ("artifacts", 2, 2), ("gkd_mlflow", 1, 1), ("gkd_prefect", 1, 1),
    ]  # fmt: skip
    assert Path(str(backup_store)).stat().st_mode & 0o777 == 0o700


def test_a_database_that_is_written_to_is_copied_as_of_one_moment(project: Path, backup_store: BackupStore) -> None:
    with closing(sqlite3.connect(project / FILES["gkd_mlflow"])) as writer:
        writer.execute("INSERT INTO notes VALUES ('not committed yet')")
        run(project, backup_store)
        writer.rollback()
    before = memory(project)
    destroy(project)
    put_back(project, backup_store)
    assert memory(project) == before


def test_a_second_backup_copies_what_is_new_and_is_whole_without_the_first(project: Path, backup_store: BackupStore) -> None:
    first, _ = run(project, backup_store)
    (project / ARTIFACT_FOLDER / "new").write_text("new")
    _, parts = run(project, backup_store)
    assert [part.copied for part in parts][-1] == 1
    before = memory(project)
    prune(backup_store, 1)
    assert first not in backup_store.names()
    destroy(project)
    put_back(project, backup_store)
    assert memory(project) == before


def test_pruning_removes_what_no_backup_names_and_leftovers_of_unfinished_ones(project: Path, backup_store: BackupStore) -> None:
    old = project / ARTIFACT_FOLDER / "old"
    old.write_text("only in the first")
    first, _ = run(project, backup_store)
    old.unlink()
    last, _ = run(project, backup_store)
    leftover = project.parent / "leftover"
    leftover.write_text("of an unfinished backup")
    backup_store.keep(leftover, "0" * 64)
    done = prune(backup_store, 1)
    assert done.backups == (first,) and backup_store.names() == [last]
    assert {path.name for path in contents(backup_store)} == set(backup_store.read(last).contents)
    assert prune(backup_store, 1).contents == 0
    put_back(project, backup_store, replace=True)


def test_pruning_removes_nothing_where_a_manifest_cannot_be_read(project: Path, backup_store: BackupStore) -> None:
    run(project, backup_store)
    name, _ = run(project, backup_store)
    (Path(str(backup_store)) / "backups" / name).write_text("{}")
    before = contents(backup_store)
    with pytest.raises(DataError, match="its manifest is damaged"):
        prune(backup_store, 1)
    assert contents(backup_store) == before


def test_an_unfinished_backup_is_none(project: Path, backup_store: BackupStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def was_killed(self: BackupStore, backup: Backup) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BackupStore, "finish", was_killed)
        with pytest.raises(KeyboardInterrupt):
            run(project, backup_store)
    assert contents(backup_store)
    with pytest.raises(DataError, match="no complete backup there; one that was not finished has no manifest"):
        backup_store.newest()
    _, parts = run(project, backup_store)
    assert parts[-1].copied == 0  # what it had copied is used


def test_contents_that_are_removed_meanwhile_make_it_no_backup(
    project: Path, backup_store: BackupStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(project, backup_store)
    name = backup_store.newest()
    copy = make._copy

    def and_prune(*arguments: object) -> object:
        result = copy(*arguments)  # type: ignore[arg-type]
        for path in contents(backup_store):
            path.unlink()
        return result

    monkeypatch.setattr(make, "_copy", and_prune)
    with pytest.raises(TransientError, match="contents were removed meanwhile"):
        run(project, backup_store)
    assert backup_store.names() == [name]


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut_short, one_bit, Path.unlink])
@pytest.mark.parametrize("which", ["artifact", "database"])
def test_a_damaged_backup_touches_nothing(
    project: Path, backup_store: BackupStore, damage: Callable[[Path], None], which: str
) -> None:
    name, _ = run(project, backup_store)
    found = backup_store.read(name)
    content = found.databases[0] if which == "database" else found.trees[0].files[0]
    damage(next(path for path in contents(backup_store) if path.name == content.sha256))
    write(project / FILES["gkd_mlflow"], ["later"])
    before = memory(project)
    with pytest.raises(DataError, match="damaged|missing"):
        put_back(project, backup_store, replace=True)
    assert memory(project) == before


def test_a_damaged_manifest_is_refused(project: Path, backup_store: BackupStore) -> None:
    name, _ = run(project, backup_store)
    path = Path(str(backup_store)) / "backups" / name
    path.write_text(path.read_text().replace("gkd_mlflow", "gkd_mlfl0w"))
    with pytest.raises(DataError, match=f"backup {name}: its manifest is damaged"):
        backup_store.read(name)


def test_a_newer_format_and_a_newer_schema_are_refused(project: Path, backup_store: BackupStore) -> None:
    name, _ = run(project, backup_store)
    newer = backup_store.read(name).model_dump(mode="json") | {"format": 2}
    text = json.dumps(newer).encode()
    with pytest.raises(PlatformError, match="of format 2, this version reads 1; install the newer gkd"):
        decode("here", f"20260101T000000.000000Z-{hashlib.sha256(text).hexdigest()[:16]}.json", text)
    with closing(sqlite3.connect(project / FILES["gkd_prefect"])) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of the future'")
    run(project, backup_store)
    before = memory(project)
    with pytest.raises(
        PlatformError, match=r"gkd_prefect: its schema of the future is unknown to the prefect installed here.*prefect \d"
    ):
        put_back(project, backup_store, replace=True)
    assert memory(project) == before


def test_what_is_not_empty_stays_unless_told(project: Path, backup_store: BackupStore) -> None:
    before = memory(project)
    run(project, backup_store)
    write(project / FILES["gkd_prefect"], ["later"])
    (project / ARTIFACT_FOLDER / "later").write_text("later")
    (project / ARTIFACT_FOLDER / "1/run/model").write_text("another")
    with pytest.raises(PlatformError, match="not empty; --replace"):
        put_back(project, backup_store)
    for file in FILES.values():
        (project / file).unlink()
    with pytest.raises(DataError, match="not empty: 2 files are not the backup's, such as 1/run/model, later"):
        put_back(project, backup_store)
    put_back(project, backup_store, replace=True)
    assert memory(project) == before | {"later": b"later"}


def test_files_that_came_back_already_are_not_in_the_way(project: Path, backup_store: BackupStore) -> None:
    run(project, backup_store)
    for file in FILES.values():
        (project / file).unlink()
    (project / ARTIFACT_FOLDER / "1/run/model").unlink()
    assert put_back(project, backup_store)[0].copied == 1


def test_a_running_platform_is_not_restored_under_its_feet(project: Path, backup_store: BackupStore) -> None:
    run(project, backup_store)
    me = ProcessMark(pid=os.getpid(), began=psutil.Process().create_time())
    PlatformState(supervisor=me, mark="x", ports={}, database="sqlite", services=()).write(project)
    with pytest.raises(PlatformError, match="make down first"):
        put_back(project, backup_store, replace=True)


def test_another_place_another_kind_and_links_are_refused(
    project: Path, backup_store: BackupStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(project, backup_store)
    with pytest.raises(PlatformError, match="restore in a checkout at the same place"):
        put_back(tmp_path / "elsewhere", backup_store)
    monkeypatch.setenv("GKD_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/postgres")
    with pytest.raises(PlatformError, match="backed up from sqlite, and the databases here are of postgresql"):
        put_back(project, backup_store)
    monkeypatch.delenv("GKD_DATABASE_URL")
    (project / ARTIFACT_FOLDER / "link").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match="link: no regular file"):
        run(project, backup_store)
    with pytest.raises(PlatformError, match="not there; run this in the project's folder"):
        run(tmp_path, backup_store)


@pytest.fixture
def commands(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    monkeypatch.chdir(project)

    def run(*words: str) -> list[str]:
        result = CliRunner().invoke(app, ["infra", *words])
        if isinstance(result.exception, GkdError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return [line for line in result.output.splitlines() if "bytes" not in line]  # progress

    return run


def test_the_commands_say_what_they_did(project: Path, commands: Callable[..., list[str]], tmp_path: Path) -> None:
    place, before = str(tmp_path / "backups"), memory(project)
    assert commands("backups", place) == [f"no whole backup in {place}"]
    *_, last = commands("backup", place)
    name = last.split()[1].rstrip(":")
    assert last == f"backup {name}: whole"
    assert commands("backups", place)[0].startswith(f"{name}  0.0 MiB  gkd 0.1.0, prefect 3.")
    assert commands("check-backup", place) == [f"backup {name}: whole and undamaged"]
    assert commands("restore", place)[-1] == f"backup {name}: restored"  # nothing of it is lost, as all is as it was
    write(project / FILES["gkd_mlflow"], ["later"])
    with pytest.raises(PlatformError, match="not empty"):
        commands("restore", place)
    destroy(project)
    assert commands("restore", place)[-1] == f"backup {name}: restored"
    assert memory(project) == before
    assert commands("prune", place, "--keep", "1") == ["0 contents removed, 0.0 MiB"]
