"""What lies where other users write too is this user's own, or refused: scratch folders, shard cache, the set-up's lock."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gkd_core.cluster.bucket_nodes import SCRATCH, BucketNodes, node_workspace
from gkd_core.errors import PlatformError
from gkd_core.storage.download import Expected
from gkd_core.storage.keys import Location
from gkd_core.storage.shard_cache import ShardCache
from gkd_core.system.locks import own_lock_file
from gkd_core.system.own import make_own_folder

CONTENT = b"shard"
SHARD = Expected(len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def scratch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare the work of a node whose folder for this user is the given one."""
    monkeypatch.setattr("gkd_core.cluster.bucket_nodes.node_workspace", lambda name: folder / name)
    BucketNodes(Location("bucket", "work"), folder / "work", has_inputs=False).prepare()


def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ShardCache(folder, 100).hold(SHARD, lambda stream: stream.write(CONTENT)).release()


USES = pytest.mark.parametrize("use", [scratch, cache])
Use = Callable[[Path, pytest.MonkeyPatch], None]


@USES
def test_a_folder_that_is_made_is_ours_alone(use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(tmp_path / "shared" / "folder", monkeypatch)
    assert (tmp_path / "shared" / "folder").stat().st_mode & 0o777 == 0o700


@USES
def test_one_that_is_there_loses_what_others_may_write(use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o777)
    use(folder, monkeypatch)
    assert folder.stat().st_mode & 0o777 == (0o700 if use is scratch else 0o755)


@USES
@pytest.mark.parametrize("laid", ["a link", "a folder of another user", "a file"])
def test_what_another_user_has_laid_there_is_refused(
    use: Use, laid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    folder = tmp_path / "folder"
    if laid == "a link":
        folder.symlink_to(theirs)
    elif laid == "a file":
        folder.write_text("")
    else:
        folder.mkdir()
        monkeypatch.setattr(os, "getuid", lambda: 4711)
    setting = SCRATCH if use is scratch else "compute.shard_cache"
    with pytest.raises(PlatformError, match=f"{folder}: another user's, or a link; remove it, or set {setting} to") as raised:
        use(folder, monkeypatch)
    assert "\n" not in str(raised.value)
    assert not list(theirs.iterdir())


def test_each_user_has_a_scratch_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(SCRATCH, str(tmp_path))
    assert node_workspace("work") == tmp_path / f"gkd-{os.getuid()}" / "work"
    make_own_folder(node_workspace("work").parent, "nothing")


def test_a_lock_is_made_for_its_owner_and_used_again(tmp_path: Path) -> None:
    for _ in range(2):
        with own_lock_file(tmp_path / "lock") as descriptor:
            assert os.fstat(descriptor).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("laid", ["a link", "a dangling link", "a folder", "a pipe", "a file of another user"])
def test_a_lock_that_another_user_has_laid_is_refused(laid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, theirs = tmp_path / "lock", tmp_path / "theirs"
    if laid == "a link":
        theirs.write_text("")
        lock.symlink_to(theirs)
    elif laid == "a dangling link":
        lock.symlink_to(theirs)
    elif laid == "a folder":
        lock.mkdir()
    elif laid == "a pipe":
        os.mkfifo(lock)
    else:
        lock.write_text("")
        monkeypatch.setattr(os, "getuid", lambda: 4711)
    with pytest.raises(PlatformError, match=f"{lock}: .*remove it, or set TMPDIR"), own_lock_file(lock):
        raise AssertionError("it was taken")
    assert laid == "a link" or not theirs.exists(), "nothing was made where the link leads"


def test_the_set_up_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "theirs")
    command = [sys.executable, "-m", "flows.local_platform.set_up", str(tmp_path / "lock")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"set-up: {tmp_path / 'lock'}: ")
    assert "Traceback" not in done.stderr
