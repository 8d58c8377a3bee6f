"""Digests of the user's data, as DVC records them, shared by all workspaces of a project.

DVC knows a file again by path, inode, size and time of change, in a database of each repository. A workspace is a repository
that lives for one run: alone, it would read all images again to learn their digests. So what lies outside of it, or behind
its link to the project's data, is remembered by the project, under its real path.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path

from dvc.repo import Repo
from dvc_data.hashfile.cache import HashesCache

from gkd_core.notes import clear_folder, set_aside

HASHES, LINKS = Path("hashes/local"), Path("links")  # DVC's databases, below the folder that it keeps for a repository
DATABASE = "cache.db"
SITE = "site"  # in `.dvc`, unless its settings or DVC_SITE_CACHE_DIR name another
AGAIN = "digests of the data are computed again"


class SoundRepo(Repo):  # type: ignore[misc]  # DVC is not annotated
    """A repository whose databases of digests and links lie in it, and are set aside where they are damaged: all in them can be
    found again.
    """

    @cached_property
    def site_cache_dir(self) -> str:
        """The folder of the databases, which DVC asks for before it opens them.

        By itself DVC takes one below /var/tmp, which a container cannot write, and lets every user of the machine write to it.
        """
        site = self.config["core"].setdefault("site_cache_dir", os.path.join(self.dvc_dir, SITE))
        if Path(site).is_relative_to(self.dvc_dir):
            Path(site, "repo").mkdir(parents=True, exist_ok=True)  # with our own umask
        folder = str(super().site_cache_dir)
        for name in (HASHES, LINKS):
            clear_folder(Path(folder, name), AGAIN)
            _set_aside_unless_sound(Path(folder, name))
        return folder


def _set_aside_unless_sound(folder: Path) -> None:
    if not (folder / DATABASE).exists():
        return
    try:
        with closing(sqlite3.connect(folder / DATABASE)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):  # whoever writes it finds it sound
            return
        found = error
    if found != "ok":
        set_aside(folder, found, AGAIN)


class RoutedHashes:
    """DVC's database of digests by path, in two parts: that of the repository, and that of its project."""

    def __init__(self, root: str, own: HashesCache, shared: HashesCache) -> None:
        self._root = os.path.realpath(root)
        self._own = own
        self._shared = shared
        self._folders: dict[str, str] = {}  # folder to real folder: asked once, not for each of its files

    def get(self, path: str) -> str | None:
        database, key = self._place(path)
        value: str | None = database.get(key)
        return value

    def __setitem__(self, path: str, value: str) -> None:
        database, key = self._place(path)
        database[key] = value

    def get_many(self, paths: Iterable[str]) -> Iterator[tuple[str, str | None]]:
        """Each path with what is remembered of it, in any order."""
        for database, names in self._sorted(paths):
            for key, value in database.get_many(list(names)):
                yield names[key], value

    def set_many(self, items: Sequence[tuple[str, str]]) -> None:
        values = dict(items)
        for database, names in self._sorted(values):
            database.set_many([(key, values[path]) for key, path in names.items()])

    def close(self) -> None:
        self._own.close()
        self._shared.close()

    def _sorted(self, paths: Iterable[str]) -> list[tuple[HashesCache, dict[str, str]]]:
        """The two databases, each with the paths that it remembers by its own names for them."""
        own: dict[str, str] = {}
        shared: dict[str, str] = {}
        for path in paths:
            database, key = self._place(path)
            (own if database is self._own else shared)[key] = path
        return [(self._own, own), (self._shared, shared)]

    def _place(self, path: str) -> tuple[HashesCache, str]:
        folder, name = os.path.split(path)
        real = self._folders.get(folder)
        if real is None:
            real = self._folders[folder] = os.path.realpath(folder)
        if os.path.commonpath([real, self._root]) == self._root:
            return self._own, path
        return self._shared, os.path.join(real, name)


def share_hashes(repo: Repo) -> None:
    """Have a workspace's repository remember digests of what lies outside of it with the project, whose cache it uses."""
    folder = next((path for path in Path(repo.cache.local.path).parents if path.name == Repo.DVC_DIR), None)
    if folder is None or not folder.is_dir() or folder.samefile(repo.dvc_dir):
        return
    with SoundRepo(str(folder.parent), config={"core": {"no_scm": True}}) as owner:
        shared = HashesCache(str(Path(owner.site_cache_dir) / HASHES))
    repo.state.hashes = RoutedHashes(repo.root_dir, repo.state.hashes, shared)
