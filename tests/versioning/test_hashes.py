"""Workspaces do not read the project's data again to learn digests that the project knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from dvc_data.hashfile import hash as hashing

from gkd_core.settings import settings_from_tree
from gkd_core.versioning.hashes import RoutedHashes, share_hashes
from gkd_core.versioning.workspace import create_workspace


@pytest.fixture
def read_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that DVC reads to learn their digest, as it reads them."""
    seen: list[str] = []
    original = hashing.file_md5

    def spy(path: str, *arguments: Any, **options: Any) -> Any:
        seen.append(path)
        return original(path, *arguments, **options)

    monkeypatch.setattr(hashing, "file_md5", spy)
    return seen


def _digest(workspace: Path) -> str:
    with Repo(str(workspace)) as repo:
        share_hashes(repo)
        (stage,) = repo.stage.load_all(str(workspace / "dvc.yaml"), "read")
        (dependency,) = stage.deps
        return str(dependency.get_hash().value)


def test_a_second_workspace_reads_no_image_again(project: Path, toys: Mapping[str, Any], read_files: list[str]) -> None:
    settings = settings_from_tree({"data": {"world": None, "root": "data"}})
    (project / ".dvc").mkdir(parents=True)
    (project / "data" / "yard").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (project / "data" / "yard" / name).write_text(name)
    digests = []
    for name in ("first", "second"):
        workspace = create_workspace(project, name, settings)
        (workspace / "dvc.yaml").write_text("stages: {read: {cmd: 'true', deps: [data/yard], outs: [out]}}")
        digests.append(_digest(workspace))
    assert sorted(Path(path).name for path in read_files if path.endswith(".png")) == ["a.png", "b.png"]
    (project / "data" / "yard" / "a.png").write_text("changed")
    digests.append(_digest(workspace))
    assert digests[0] == digests[1] != digests[2]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    own, outside = tmp_path / "own", tmp_path / "outside"
    own.mkdir()
    outside.mkdir()
    (own / "link").symlink_to(outside)
    return own, outside


def test_paths_are_sorted_by_where_they_really_lie(folders: tuple[Path, Path]) -> None:
    class Database(dict[str, str]):
        def get_many(self, keys: list[str]) -> list[tuple[str, str | None]]:
            return [(key, self.get(key)) for key in keys]

        def set_many(self, items: list[tuple[str, str]]) -> None:
            self.update(items)

    own, outside = folders
    mine, shared = Database(), Database()
    routed: Any = RoutedHashes(str(own), mine, shared)  # type: ignore[arg-type]
    routed[f"{own}/a"] = "1"
    routed.set_many([(f"{own}/link/b", "2"), (f"{outside}/c", "3"), (f"{own}/d", "4")])
    assert mine == {f"{own}/a": "1", f"{own}/d": "4"}
    assert shared == {f"{outside}/b": "2", f"{outside}/c": "3"}
    assert routed.get(f"{own}/link/c") == "3"
    assert dict(routed.get_many([f"{own}/link/b", f"{own}/a", f"{own}/x"])) == {
        f"{own}/link/b": "2", f"{own}/a": "1", f"{own}/x": None
    }  # fmt: skip
