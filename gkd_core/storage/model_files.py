"""The files of a logged model, by their digests: recorded in MLflow's database, away from the files, when the model is logged.

A pt2 program is code: torch evaluates expressions that stand in it. So no file of a model is opened for what it is before its
digest was seen to be the one recorded. Whoever can write the store of artifacts cannot write the record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from gkd_core.errors import WeightsError
from gkd_core.messages import shown
from gkd_core.records import sha256_of

FILE_TAG = "file:"  # tags `file:PATH` of a logged model, and of its version in the registry
LOG_AGAIN = "log the model again (gkd registry register)"


def digests_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path there.

    Raises:
        WeightsError: something there is neither a file nor a folder.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise WeightsError(f"{path}: a link or a device among the files of a model; {LOG_AGAIN}")
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = sha256_of(path)
    return found


def tags_of(digests: Mapping[str, str]) -> dict[str, str]:
    """Digests by path as tags of MLflow."""
    return {f"{FILE_TAG}{path}": digest for path, digest in digests.items()}


def recorded(tags: Mapping[str, str]) -> dict[str, str]:
    """Digests by path from the tags of MLflow; empty of a model that was logged by an older version or another program."""
    return {key.removeprefix(FILE_TAG): value for key, value in tags.items() if key.startswith(FILE_TAG)}


def require_record(digests: Mapping[str, str], label: str) -> None:
    """Raise `WeightsError` of a model of which nothing is recorded."""
    if not digests:
        raise WeightsError(f"{label}: no digests of its files are on record, so nothing of it is loaded; {LOG_AGAIN}")


def check_files(folder: Path, digests: Mapping[str, str], label: str, ignored: Collection[str] = ()) -> None:
    """Hold every file of a model that was fetched against the record.

    Args:
        label: what the model is called in messages.
        ignored: paths that may be there without a record.

    Raises:
        WeightsError: nothing is recorded, or a file is missing, added or changed.
    """
    require_record(digests, label)
    there = {path: digest for path, digest in digests_of(folder).items() if path in digests or path not in ignored}
    for words, paths in (
        ("changed", [path for path in there.keys() & digests.keys() if there[path] != digests[path]]),
        ("missing", digests.keys() - there.keys() - set(ignored)),
        ("added", there.keys() - digests.keys()),
    ):
        if paths:
            first = shown(min(paths))
            raise WeightsError(f"{label}: {first}: {words} since it was logged; restore its artifacts, or {LOG_AGAIN}")


def check_content(content: bytes, path: str, digests: Mapping[str, str], label: str) -> None:
    """Hold one file's content against the record; raises as `check_files`."""
    if digests.get(path) != hashlib.sha256(content).hexdigest():
        words = "changed since it was logged" if path in digests else "not on record"
        raise WeightsError(f"{label}: {shown(path)}: {words}; restore its artifacts, or {LOG_AGAIN}")
