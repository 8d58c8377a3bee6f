"""Writing so that a crash leaves either the old file or the new one, never half of one.

What is being written lies beside its place under a name of one pattern, and is locked (flock) by who writes it: so what a killed
process has left is told from what a living one writes, and `sweep` removes it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

TEMPORARY = re.compile(r"\.(?P<name>.+)\.gkd-[0-9a-f]{12}(?P<suffix>\.[^.]*)?", re.DOTALL)
LEGACY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}(?P<suffix>\.[^.]*)?", re.DOTALL)  # as versions before 0.2 called them
LONGEST_STEM = 200  # bytes of the file's own name in that of its temporary: the whole must stay below 255
LONGEST_SUFFIX = 20
MOST_LOOKED_AT = 256  # names in a folder before each file that is written to it: in a large one that must not cost more than this
# What a file system says that cannot sync a folder, or has no locks.
UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends without an error it is on the disk, and takes the place of `path`.

    After an error it is removed, as are those that killed writers of this path have left. Where `path` is such a temporary
    itself, it is given as it is: its own writer decides.
    """
    with _file_beside(path, _new_file) as temporary:
        yield temporary


@contextmanager
def private_file(path: Path) -> Iterator[Path]:
    """As `atomic_file`, for a secret: at no moment can others read it."""
    with _file_beside(path, _new_private_file) as temporary:
        yield temporary


@contextmanager
def _file_beside(path: Path, make: Callable[[Path], int]) -> Iterator[Path]:
    if is_temporary(path.name):
        yield path
        return
    make_folders(path.parent)
    sweep_beside(path, MOST_LOOKED_AT)
    temporary, lock = _claim(path, make)
    try:
        with naming(path):
            yield temporary
            settle(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(lock)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty temporary folder beside `path`; it takes the place of `path` when the block ends without an error.

    Several processes may do so at once: the last takes the place, and its folder is whole and on the disk.
    """
    with _folder_beside(path, _take_place) as temporary:
        yield temporary


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """As `atomic_folder`, where nothing may be lost: what is at `path` stays, unless it is an empty folder.

    Raises:
        OSError: at the end of the block, where something else is at `path`.
    """
    with _folder_beside(path, os.rename) as temporary:
        yield temporary


@contextmanager
def _folder_beside(path: Path, settle_at: Callable[[Path, Path], None]) -> Iterator[Path]:
    make_folders(path.parent)
    sweep_beside(path, MOST_LOOKED_AT)
    temporary, lock = _claim(path, _new_folder)
    try:
        with naming(path):
            yield temporary
            _sync(temporary)
        settle_at(temporary, path)
        _sync_entry(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """An empty folder among the system's temporary files, this user's alone, that goes when the block ends.

    Those of the same purpose that killed processes have left go first.
    """
    place = Path(tempfile.gettempdir()) / f"gkd-{purpose}"
    sweep_beside(place)
    folder, lock = _claim(place, _new_private_folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def settle(new: Path, path: Path) -> None:
    """Rename a file or folder to `path` once all of it is on the disk, and have the disk keep the new name as well."""
    _sync(new)
    os.replace(new, path)
    _sync_entry(path.parent)
    if new.parent != path.parent:
        _sync_entry(new.parent)


def make_folders(folder: Path) -> None:
    """Make a folder with its parents, so that the disk keeps their names."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        _sync_entry(each.parent)


def is_temporary(name: str) -> bool:
    """Whether it is the name of something that is being written, or was when its writer was killed."""
    return _matches(TEMPORARY, name)


def is_temporary_of_any_version(name: str) -> bool:
    """As `is_temporary`, of older versions too, whose names said less: for folders in which nobody else writes."""
    return is_temporary(name) or _matches(LEGACY, name)


def is_ours(path: Path) -> bool:
    """Whether a path is a temporary file or folder of this program and user; a link is not."""
    if not is_temporary(path.name):
        return False
    facts = path.lstat()
    return facts.st_uid == os.geteuid() and _is_plain(facts)


def sweep(folder: Path, is_known: Callable[[str], bool] = is_temporary) -> list[Path]:
    """Remove what killed processes of this user have left half-written below a folder; what a living one writes stays.

    Returns:
        the paths removed.
    """
    removed = []
    for root, folders, files in os.walk(folder):
        known = [name for name in (*folders, *files) if is_known(name)]
        removed += [path for path in (Path(root, name) for name in known) if _remove_unheld(path)]
        folders[:] = [name for name in folders if name not in known]
    return removed


def sweep_beside(path: Path, most: int | None = None) -> list[Path]:
    """Remove what killed processes of this user have left that were writing `path`; returns the paths removed.

    Args:
        most: how many names of the folder are looked at; None: all.
    """
    try:
        with os.scandir(path.parent) as entries:
            names = [entry.name for entry in islice(entries, most)]
    except FileNotFoundError:
        return []
    return [path.parent / name for name in names if _is_of(name, path) and _remove_unheld(path.parent / name)]


def _is_of(name: str, path: Path) -> bool:
    """Whether it is the name of a temporary of this very path."""
    found = TEMPORARY.fullmatch(name)
    return found is not None and found["name"] == _stem(path) and (found["suffix"] or "") == _suffix(path)


def _matches(pattern: re.Pattern[str], name: str) -> bool:
    found = pattern.fullmatch(name)
    return found is not None and (found["suffix"] or "") in ("", Path(found["name"]).suffix)


def _stem(path: Path) -> str:
    """The file's name as that of its temporary has it: a name too long for that stands there by its digest."""
    if len(os.fsencode(path.name)) <= LONGEST_STEM:
        return path.name
    return hashlib.sha256(os.fsencode(path.name)).hexdigest() + _suffix(path)


def _suffix(path: Path) -> str:
    return path.suffix if len(os.fsencode(path.suffix)) <= LONGEST_SUFFIX else ""


def _temporary(path: Path) -> Path:
    """A fresh name beside `path`, with its suffix: some writers go by that."""
    return path.with_name(f".{_stem(path)}.gkd-{secrets.token_hex(6)}{_suffix(path)}")


class _Swept(Exception):
    """A folder was swept before it could be locked."""


def _claim(path: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """Make a temporary beside `path`, and lock it; gives it and its descriptor, which is to be closed."""
    while True:
        temporary = _temporary(path)
        # Who sweeps may come before it is locked: then it is his.
        try:
            descriptor = make(temporary)
        except _Swept:
            continue
        if _lock(descriptor) and os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)


def _new_file(path: Path, mode: int = 0o666) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)


def _new_private_file(path: Path) -> int:
    return _new_file(path, 0o600)


def _new_folder(path: Path, mode: int = 0o777) -> int:
    path.mkdir(mode)
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _Swept from None


def _new_private_folder(path: Path) -> int:
    return _new_folder(path, 0o700)


def _lock(descriptor: int) -> bool:
    """Lock a temporary of ours; False where who sweeps holds it. Without locks of the file system, nobody sweeps there."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _remove_unheld(path: Path) -> bool:
    """Remove a temporary that no living process holds; whether that was done. What cannot be removed stays."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        facts = os.fstat(descriptor)
        if facts.st_uid != os.geteuid() or not _is_plain(facts):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(facts.st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _is_plain(facts: os.stat_result) -> bool:
    return stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the name of what is written into an error of the system that has none: a write that fails says only why."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _take_place(new: Path, path: Path) -> None:
    """Rename a folder to `path`, and remove the folder that was there."""
    while True:
        try:
            os.replace(new, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return
        # Out of the way by a rename, as removing takes time in which another could come to lie there.
        old = _temporary(path)
        with suppress(FileNotFoundError):  # another has just done so
            os.replace(path, old)
            shutil.rmtree(old, ignore_errors=True)  # the next writer may sweep it at the same time


def _sync(path: Path) -> None:
    """Have the disk keep a file, or all of a folder."""
    if path.is_dir() and not path.is_symlink():
        for root, _, files in os.walk(path, topdown=False):
            for name in files:
                if not os.path.islink(os.path.join(root, name)):
                    _sync_one(Path(root, name))
            _sync_entry(Path(root))
    else:
        _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_entry(folder: Path) -> None:
    """Have the disk keep the names in a folder, where its file system can do that for a folder."""
    try:
        _sync_one(folder)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
