"""Keys of our servers: random, for their owner's eyes alone, lent to our own MLflow and to no other."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gkd_core.errors import PlatformError
from gkd_core.system.server_keys import FILE, ServerKeys, lend_mlflow_key, make_keys, make_private, read_keys, write_private

OURS = "http://127.0.0.1:5000"


def test_keys_are_made_once_and_are_their_owners_alone(tmp_path: Path) -> None:
    keys, made = make_keys(tmp_path / "platform")
    assert made and make_keys(tmp_path / "platform") == (keys, False) and read_keys(tmp_path / "platform") == keys
    assert (tmp_path / "platform" / FILE).stat().st_mode & 0o777 == 0o600
    other, _ = make_keys(tmp_path / "other")
    assert not {keys.prefect, keys.mlflow, keys.forms} & {other.prefect, other.mlflow, other.forms}
    assert not any(secret in repr(keys) for secret in (keys.prefect.partition(":")[2], keys.mlflow, keys.forms))
    assert read_keys(tmp_path / "none") is None


def test_the_folder_of_keys_is_closed_to_others_whatever_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "platform"
    folder.mkdir()
    folder.chmod(0o777)  # others could put a database of MLflow's users of their own there
    make_keys(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    make_keys(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604, 0o640])
def test_keys_that_others_may_have_read_are_not_used(tmp_path: Path, mode: int) -> None:
    make_keys(tmp_path)
    (tmp_path / FILE).chmod(mode)
    with pytest.raises(PlatformError, match=r"keys\.json: others may have read it"):
        make_keys(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"prefect": "a:b", "mlflow": "", "forms": ""}', b"[]"])
def test_damaged_keys_are_said_to_be(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    (tmp_path / FILE).chmod(0o600)
    with pytest.raises(PlatformError, match=r"keys\.json: damaged; make down, remove it") as error:
        read_keys(tmp_path)
    assert "\n" not in str(error.value)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    make_keys(tmp_path / "others")
    (tmp_path / FILE).symlink_to(tmp_path / "others" / FILE)
    with pytest.raises(PlatformError, match=r"keys\.json: cannot be read"):
        read_keys(tmp_path)


def test_a_private_file_is_private_from_its_first_moment_and_leaves_no_part(tmp_path: Path) -> None:
    write_private(tmp_path / "a" / "key", "secret")
    write_private(tmp_path / "a" / "key", "newer")
    assert (tmp_path / "a" / "key").read_text() == "newer"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["key"]
    assert (tmp_path / "a" / "key").stat().st_mode & 0o777 == 0o600


def test_a_database_and_what_sqlite_puts_beside_it_are_private(tmp_path: Path) -> None:
    path = tmp_path / "x" / "store.db"
    make_private(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (a)")
        connection.commit()
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}
    path.chmod(0o644)
    make_private(path)
    assert path.stat().st_mode & 0o777 == 0o600, "one from before is made private too"


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:5001", "https://127.0.0.1:5000", "http://evil.example:5000", "sqlite:///x"]
)
def test_the_key_goes_to_our_own_server_alone(tmp_path: Path, address: str) -> None:
    keys, _ = make_keys(tmp_path)
    environment: dict[str, str] = {}
    lend_mlflow_key(address, OURS, tmp_path, environment)
    assert environment == {}
    lend_mlflow_key(OURS, None, tmp_path, environment)
    assert environment == {}
    lend_mlflow_key(f"{OURS}/", OURS, tmp_path, environment)
    assert environment == {"MLFLOW_TRACKING_USERNAME": "gkd", "MLFLOW_TRACKING_PASSWORD": keys.mlflow}
    own = {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "hers"}
    lend_mlflow_key(OURS, OURS, tmp_path, own)
    assert own["MLFLOW_TRACKING_USERNAME"] == "ann"


def test_new_keys_have_the_form_that_is_read_back() -> None:
    keys = ServerKeys.new()
    assert ServerKeys.model_validate_json(keys.model_dump_json()) == keys
    assert keys.prefect.startswith("gkd:") and len(keys.mlflow) >= 32
