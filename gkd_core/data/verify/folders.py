"""Walks through folders that may hold anything: links in circles, links to nothing, folders that may not be read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from gkd_core.data.catalog.entries import fixed_folder
from gkd_core.data.verify.kinds import Kind

Place = tuple[Path, Kind, str]
"""Where something is wrong, what, and its particulars."""


@dataclass
class Tree:
    """What lies below a folder. `problems` are places that could not be entered; `closed` are those folders."""

    files: list[Path] = field(default_factory=list)
    problems: list[Place] = field(default_factory=list)

    @property
    def closed(self) -> set[Path]:
        return {path for path, _, _ in self.problems}


def walk(base: Path, pattern: str) -> Tree:
    """All that is no folder below the fixed folder of `pattern`, as deep as its wildcards reach, links followed."""
    wild = PurePosixPath(pattern).parts[:-1][len(PurePosixPath(fixed_folder(pattern)).parts) :]
    folder = base / fixed_folder(pattern)
    tree = Tree()
    above = frozenset(_identity(parent.stat()) for parent in folder.resolve().parents)
    _enter(folder, None if "**" in wild else len(wild), above, tree)
    return tree


def _enter(folder: Path, depth: int | None, above: frozenset[tuple[int, int]], tree: Tree) -> None:
    """Add what lies in `folder` to `tree`; `above` identifies the folders on the way, to see a link that leads back."""
    try:
        status = folder.stat()
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        kind = Kind.NO_PERMISSION if isinstance(error, PermissionError) else Kind.CHECK_FAILED
        tree.problems.append((folder, kind, f"folder: {error.strerror}"))
        return
    here = _identity(status)
    if here in above:
        tree.problems.append((folder, Kind.LINK_LOOP, f"leads back to {folder.resolve()}, which holds it"))
        return
    below = None if depth is None else depth - 1
    for entry in entries:
        path = folder / entry.name
        if _is_folder(entry):
            if depth != 0:
                _enter(path, below, above | {here}, tree)
        elif depth != 0 and entry.is_symlink() and not path.suffix and not path.exists():
            # In the place of a folder, whose images would be missing without a word.
            tree.problems.append((path, Kind.DANGLING_LINK, f"points to {os.readlink(path)}"))
        else:
            tree.files.append(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle is no folder
        return False


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
