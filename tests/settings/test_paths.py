"""One rule for every setting that is a path: a leading `~` is the home folder, all else stands for itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from gkd_core.errors import SettingsError
from gkd_core.settings import Settings, load_settings

OF_KEY = {
    "data.root": lambda settings: settings.data.root,
    "data.shards": lambda settings: settings.data.shards,
    "data.catalogs": lambda settings: settings.data.catalogs[0],
    "teacher.weights": lambda settings: settings.teacher.weights,
    "student.weights": lambda settings: settings.student.weights,
    "registry.private_key": lambda settings: str(settings.registry.private_key),
    "registry.public_key": lambda settings: str(settings.registry.public_key),
}


def with_path(key: str, path: str) -> str:
    value = f"[{path!r}]" if key == "data.catalogs" else repr(path)
    world = ["data.world=null"] if key in ("data.root", "data.shards") else []
    found = OF_KEY[key](load_settings(None, "demo", [*world, f"{key}={value}"]))
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize("key", OF_KEY)
def test_the_home_folder_is_put_in(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert with_path(key, "~/x/y.pth") == "/home/somebody/x/y.pth"


@pytest.mark.parametrize("key", OF_KEY)
@pytest.mark.parametrize("path", ["$HOME/x.pth", "${DATA}/x.pth", "/a/~/x.pth", "a~b.pth", "%HOME%/x.pth"])
def test_all_else_stands_for_itself(key: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "/data")
    assert with_path(key, path) == path


@pytest.mark.parametrize("key", ["data.root", "data.catalogs", "student.weights", "registry.public_key"])
def test_a_home_of_nobody_is_refused_by_name(key: str) -> None:
    with pytest.raises(SettingsError, match=f"{key}.*~nobody-of-that-name: no home folder"):
        with_path(key, "~nobody-of-that-name/x.pth")


def test_addresses_and_names_are_no_paths() -> None:
    changed = load_settings(None, "demo", ["data.world=null", "data.shards=s3://bucket/~x", "data.catalogs=[camvid]"])
    assert (changed.data.shards, changed.data.catalogs) == ("s3://bucket/~x", ("camvid",))
    assert Path(Settings().compute.shard_cache).parts[0] == "~"  # of each machine that reads it
