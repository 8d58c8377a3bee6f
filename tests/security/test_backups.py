"""A backup is restored where its seal fits the key, or its manifest the digest that was pinned: nothing else proves its maker."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gkd_core.errors import DataError, GkdError, PlatformError
from gkd_core.operations.backup.backup_store import BackupStore, open_backup_store
from gkd_core.operations.backup.manifest import Backup, Dump
from gkd_core.operations.backup.retention import prune
from gkd_core.operations.backup.seal import check_seal, key_file, newest_proven, seal
from gkd_core.system.server_keys import write_private


def backup_in(backup_store: BackupStore, word: str = "1") -> str:
    return backup_store.finish(Backup(made=datetime.now(UTC), versions={"gkd": word}, databases=(), trees=()))


@pytest.fixture
def backup_store(tmp_path: Path) -> BackupStore:
    return open_backup_store(str(tmp_path / "backups"))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "owner" / "backup.key"


def test_a_sealed_backup_is_taken_and_its_digest_is_told(backup_store: BackupStore, key: Path) -> None:
    name = backup_in(backup_store)
    digest = seal(backup_store, name, key)
    assert digest == hashlib.sha256(backup_store.manifest(name)).hexdigest()
    assert key.stat().st_mode & 0o777 == 0o600
    check_seal(backup_store, name, key, None)
    check_seal(backup_store, name, key.with_name("none"), digest)


def test_a_backup_that_somebody_else_made_is_refused(backup_store: BackupStore, key: Path, tmp_path: Path) -> None:
    ours = backup_in(backup_store)
    digest = seal(backup_store, ours, key)
    theirs = backup_in(backup_store, "evil")
    with pytest.raises(DataError, match="has no seal, so nothing proves who made it"):
        check_seal(backup_store, theirs, key, None)
    seal(backup_store, theirs, tmp_path / "their.key")
    with pytest.raises(DataError, match="its seal does not fit the key"):
        check_seal(backup_store, theirs, key, None)
    with pytest.raises(DataError, match="its manifest has another digest than the one given"):
        check_seal(backup_store, theirs, key, digest)
    backup_store.put_seal(theirs, str(backup_store.seal(ours)))
    with pytest.raises(DataError, match="its seal does not fit the key"):
        check_seal(backup_store, theirs, key, None)
    with pytest.raises(DataError, match="no key at"):
        check_seal(backup_store, ours, tmp_path / "no.key", None)


@given(st.binary(max_size=80))
@settings(max_examples=100)
def test_no_other_seal_fits(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("place")
    backup_store, key = open_backup_store(str(folder / "backups")), folder / "key"
    name = backup_in(backup_store)
    seal(backup_store, name, key)
    place = folder / "backups" / "seals" / name
    if content.strip() == place.read_bytes().strip():
        return
    place.write_bytes(content)
    with pytest.raises(DataError, match="its seal does not fit"):
        check_seal(backup_store, name, key, None)


@pytest.mark.parametrize("given_digest", ["", "0" * 63, "x" * 64, "A" * 64, "../" * 20])
def test_a_digest_that_is_none_is_refused(backup_store: BackupStore, key: Path, given_digest: str) -> None:
    name = backup_in(backup_store)
    with pytest.raises(DataError, match="expected the 64 hexadecimal digits"):
        check_seal(backup_store, name, key, given_digest)


def test_a_key_that_others_can_read_or_that_is_short_is_not_used(backup_store: BackupStore, key: Path) -> None:
    name = backup_in(backup_store)
    seal(backup_store, name, key)
    key.chmod(0o644)
    with pytest.raises(PlatformError, match="others can read or change it"):
        check_seal(backup_store, name, key, None)
    key.chmod(0o600)
    key.write_text("short")
    with pytest.raises(PlatformError, match="a key of 5 characters; expected 32 or more"):
        check_seal(backup_store, name, key, None)


def test_an_edited_manifest_is_found_even_under_the_name_of_its_own_digest(
    backup_store: BackupStore, key: Path, tmp_path: Path
) -> None:
    name = backup_in(backup_store)
    seal(backup_store, name, key)
    place = tmp_path / "backups" / "backups"
    tree = json.loads((place / name).read_text())
    tree["versions"] = {"gkd": "evil"}
    text = (json.dumps(tree) + "\n").encode()
    forged = f"{name.split('-')[0]}-{hashlib.sha256(text).hexdigest()[:16]}.json"
    (place / forged).write_bytes(text)
    (tmp_path / "backups" / "seals" / forged).write_bytes((tmp_path / "backups" / "seals" / name).read_bytes())
    backup_store.read(forged)  # whole by its own words
    with pytest.raises(GkdError, match="its seal does not fit"):
        check_seal(backup_store, forged, key, None)


def test_a_new_backup_believes_the_newest_that_is_proven(backup_store: BackupStore, key: Path) -> None:
    assert newest_proven(backup_store, key) is None
    ours = backup_in(backup_store, "ours")
    seal(backup_store, ours, key)
    backup_in(backup_store, "forged, and newer")
    found = newest_proven(backup_store, key)
    assert found is not None and found.versions == {"gkd": "ours"} and found == backup_store.read(ours)
    assert newest_proven(backup_store, key.with_name("none")) is None


def test_an_old_backup_under_a_later_name_is_refused(backup_store: BackupStore, key: Path, tmp_path: Path) -> None:
    name = backup_in(backup_store)
    seal(backup_store, name, key)
    later = f"29990101T000000.000000Z-{name.split('-')[1]}"
    for folder in ("backups", "seals"):
        (tmp_path / "backups" / folder / later).write_bytes((tmp_path / "backups" / folder / name).read_bytes())
    assert backup_store.newest() == later
    with pytest.raises(DataError, match="made at .*, as it says itself"):
        check_seal(backup_store, later, key, None)
    assert newest_proven(backup_store, key) == backup_store.read(name)


def test_the_key_lies_apart_from_the_project(tmp_path: Path) -> None:
    assert key_file({"GKD_BACKUP_KEY_FILE": "/run/key"}) == Path("/run/key")
    assert key_file({"XDG_CONFIG_HOME": str(tmp_path)}) == tmp_path / "gkd" / "backup.key"


def moment(second: int) -> datetime:
    return datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC)


def backup_of(backup_store: BackupStore, second: int, content: bytes, key: Path | None) -> str:
    """A backup of one database, sealed where a key is given."""
    digest = hashlib.sha256(content).hexdigest()
    file = Path(str(backup_store)).parent / "content"
    file.write_bytes(content)
    backup_store.keep(file, digest)
    dump = Dump(sha256=digest, size=len(content), name="gkd_mlflow", kind="sqlite", revision="", server=0)
    name = backup_store.finish(Backup(made=moment(second), versions={}, databases=(dump,), trees=()))
    if key is not None:
        seal(backup_store, name, key)
    return name


def test_what_others_put_there_is_no_reason_to_remove_ours(backup_store: BackupStore, key: Path) -> None:
    ours = [backup_of(backup_store, second, b"ours %d" % second, key) for second in (1, 2)]
    theirs = [backup_of(backup_store, second, b"theirs %d" % second, None) for second in (3, 4, 5)]
    done = prune(backup_store, 2, key)
    assert (done.backups, done.contents, done.uncounted) == ((), 0, tuple(theirs))
    assert backup_store.names() == [*ours, *theirs]
    assert prune(backup_store, 1, key).backups == (ours[0],)
    assert ours[1] in backup_store.names()


def test_an_unproven_backup_goes_when_enough_proven_ones_are_newer(backup_store: BackupStore, key: Path) -> None:
    old = backup_of(backup_store, 1, b"before seals", None)
    first, second = (backup_of(backup_store, number, b"ours %d" % number, key) for number in (2, 3))
    assert prune(backup_store, 3, key).backups == (), "there are not as many yet"
    assert prune(backup_store, 2, key).backups == (old,)
    assert backup_store.names() == [first, second]


def test_a_forged_seal_counts_for_nothing(backup_store: BackupStore, key: Path, tmp_path: Path) -> None:
    ours = backup_of(backup_store, 1, b"ours", key)
    forged = backup_of(backup_store, 2, b"theirs", tmp_path / "their.key")
    assert prune(backup_store, 1, key).uncounted == (forged,)
    assert ours in backup_store.names()


@pytest.mark.parametrize("why", ["no key is there", "no seal fits it"])
def test_nothing_is_removed_where_nothing_is_proven(backup_store: BackupStore, key: Path, tmp_path: Path, why: str) -> None:
    names = [backup_of(backup_store, second, b"%d" % second, tmp_path / "another.key") for second in (1, 2)]
    if why == "no seal fits it":
        write_private(key, "k" * 64 + "\n")
    with pytest.raises(DataError, match=rf"no backup is proven by the key at .*\({why}\), nothing was removed; set GKD"):
        prune(backup_store, 1, key)
    assert backup_store.names() == names and len(backup_store.contents()) == 2
