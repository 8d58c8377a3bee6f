"""Workspaces: each flow run works in a folder of its own, and all of them share the project's cache and checkpoints."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from configobj import ConfigObj, ConfigObjError
from filelock import FileLock, Timeout

from gkd_core.errors import PlatformError
from gkd_core.files import atomic_folder
from gkd_core.messages import shown
from gkd_core.notes import clear_file
from gkd_core.paths import ARTIFACTS, PARAMS, REPORT, RUNS
from gkd_core.settings import Settings, dump_settings
from gkd_core.system.locks import try_lock
from gkd_core.versioning.recipe import render

WORKSPACES = ARTIFACTS / "workspaces"
IN_USE = ".in-use"
SWEEPING = ".sweeping"


def create_workspace(project: Path, name: str, settings: Settings) -> Path:
    """Make `artifacts/workspaces/<name>` in the project, with the recipe and the settings of one flow run.

    Returns:
        the workspace, absolute.

    Raises:
        PlatformError: a workspace of that name exists.
        GkdError: the settings ask for no possible plan, or DVC's file of settings cannot name the project's folder.
    """
    project = project.resolve()
    workspace = project / WORKSPACES / name
    settings = anchor_paths(settings, project)
    recipe, config = render(settings), _dvc_config(project, workspace)
    try:
        workspace.mkdir(parents=True)
    except FileExistsError:
        raise PlatformError(f"{workspace}: a workspace of this name exists; choose another name or remove it") from None
    (workspace / ".dvc").mkdir()
    (workspace / ".dvc" / "config").write_text(config, encoding="utf-8")
    (workspace / PARAMS).write_text(dump_settings(settings), encoding="utf-8")
    (workspace / "dvc.yaml").write_text(recipe, encoding="utf-8")
    (workspace / IN_USE).touch()
    (project / RUNS).mkdir(parents=True, exist_ok=True)
    (workspace / ARTIFACTS).mkdir()
    (workspace / RUNS).symlink_to(project / RUNS)
    for folder in (settings.data.root or settings.data.shards, settings.data.field):
        if folder is not None and "://" not in folder and not Path(folder).is_absolute():
            _link(workspace, project, Path(folder))
    return workspace


def _dvc_config(project: Path, workspace: Path) -> str:
    """The text of `.dvc/config`.

    Outputs are hard links to read-only files of the cache (or reflinks, which are independent copies), so that neither an edit
    nor a stage can change what the cache holds. The state database lies in the workspace and is removed with it.
    """
    site, cache = f"{workspace}/.dvc/site", f"{project}/.dvc/cache"
    config = ConfigObj(encoding="utf-8")
    config["core"] = {"no_scm": "true", "analytics": "false", "check_update": "false", "site_cache_dir": site}
    config["cache"] = {"dir": cache, "type": "reflink,hardlink,copy"}
    written = io.BytesIO()
    with suppress(ConfigObjError, UnicodeEncodeError):  # no kind of quotes is left for it, or it is no text
        config.write(written)
        read = ConfigObj(io.BytesIO(written.getvalue()), encoding="utf-8")
        if (read["core"]["site_cache_dir"], read["cache"]["dir"]) == (site, cache):
            return written.getvalue().decode("utf-8")
    raise PlatformError(f"{shown(str(project))}: DVC's settings cannot name this folder; choose one of plain characters")


def _link(workspace: Path, project: Path, path: Path) -> None:
    """Let a path of the project stand for the same in the workspace, whether there is anything yet or not."""
    (workspace / path).parent.mkdir(parents=True, exist_ok=True)
    (workspace / path).symlink_to(project / path)


def anchor_paths(settings: Settings, project: Path) -> Settings:
    """The settings with relative paths made absolute, so that they mean the same in any folder.

    Data below the project keep their relative path, as each workspace has a link to it: so a result that DVC keeps is known by
    the same names in every clone of the project, wherever that lies.
    """

    def anchored(path: str) -> str:
        return os.path.normpath(project / path)

    def anchored_root(path: str) -> str:
        if "://" in path:
            return path
        absolute = Path(anchored(path))
        inside = absolute.relative_to(project) if project in absolute.parents else None
        return str(absolute) if inside is None or inside.parts[0] == ARTIFACTS.name else str(inside)

    data = settings.data
    data = data.model_copy(
        update={
            "root": None if data.root is None else anchored_root(data.root),
            "shards": None if data.shards is None else anchored_root(data.shards),
            "field": None if data.field is None else anchored_root(data.field),
            "catalogs": tuple(
                anchored(item) if "/" in item or item.endswith((".yaml", ".yml")) else item for item in data.catalogs
            ),
        }
    )
    encoders = {
        role: encoder.model_copy(update={"weights": anchored(encoder.weights)})
        for role, encoder in (("teacher", settings.teacher), ("student", settings.student))
        if encoder.weights_file is not None
    }
    keys = {key: getattr(settings.registry, key) for key in ("private_key", "public_key")}
    changed: dict[str, object] = {key: Path(anchored(str(path))) for key, path in keys.items() if path is not None}
    field = settings.registry.field_images
    if field is not None:
        changed["field_images"] = field.model_copy(update={"folder": anchored_root(field.folder)})
    registry = settings.registry.model_copy(update=changed)
    return settings.model_copy(update={"data": data, "registry": registry, **encoders})


@contextmanager
def workspace_in_use(workspace: Path) -> Iterator[None]:
    """Keep the workspace from being swept while the block lasts; the mark ends with the process."""
    with (workspace / IN_USE).open() as mark:
        fcntl.flock(mark, fcntl.LOCK_SH)
        yield


def sweep_workspaces(project: Path, keep: int, hours: float) -> list[str]:
    """Remove workspaces whose run has ended: all but the newest `keep` and those worked in within the last `hours`.

    None that is in use is removed, whatever its age; one that a killed run left behind is in nobody's use. Cache and
    checkpoints stay. Where another process sweeps just now, nothing is left to do.

    Returns:
        the names of those removed.
    """
    folder = project / WORKSPACES
    folder.mkdir(parents=True, exist_ok=True)
    clear_file(folder / SWEEPING, "it is made anew")
    try:
        with FileLock(folder / SWEEPING, timeout=0, fallback_to_soft=False):
            newest_first = sorted(_ages(folder).items(), key=lambda item: item[1])
            old = [path for path, age in newest_first[keep:] if age > hours * 3600]
            return [workspace.name for workspace in old if _remove_unused(workspace)]
    except Timeout:
        return []


def _ages(folder: Path) -> dict[Path, float]:
    """Seconds since each workspace was last worked in: since the newest of its files was written."""
    now = time.time()
    return {path: now - _last_write(path) for path in folder.iterdir() if path.is_dir()}


def _last_write(workspace: Path) -> float:
    newest = workspace.lstat().st_mtime
    for item in workspace.iterdir():
        with suppress(FileNotFoundError):  # its run is at work, and has renamed a file to its place meanwhile
            newest = max(newest, item.lstat().st_mtime)
    return newest


def _remove_unused(workspace: Path) -> bool:
    """Remove a workspace unless it is in use; whether it was removed. Its mark is held meanwhile."""
    mark = workspace / IN_USE
    clear_file(mark, "nobody can have it in use by this mark")
    with mark.open("a") as stream:  # absent where a run was killed while it made the workspace
        if not try_lock(stream):
            return False
        shutil.rmtree(workspace)
    return True


def publish_report(workspace: Path, project: Path, place: Path = REPORT) -> Path:
    """Copy the workspace's report to a folder of the project, whole or not at all; returns that folder.

    Args:
        place: the folder, relative to the project.
    """
    return publish(workspace, project, REPORT, place)


def publish(workspace: Path, project: Path, output: Path, place: Path | None = None) -> Path:
    """Copy the files of a stage's output to the project, whole or not at all; returns the folder there.

    Args:
        place: the folder, relative to the project; that of the output itself if not given.
    """
    target = project / (output if place is None else place)
    with atomic_folder(target) as temporary:
        for source in sorted((workspace / output).iterdir()):
            shutil.copyfile(source, temporary / source.name)
    return target
