"""The fingerprint of a run before it begins: its pins, and DVC's digests of what has none, by a DVC in a process of its own."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gkd_core.errors import PlatformError
from gkd_core.settings import Settings
from gkd_core.stages import Recipe
from gkd_core.stages.fingerprint import Fingerprint, fingerprint_of
from gkd_core.versioning.dvc_process import dvc_process
from gkd_core.versioning.pinned_inputs import inputs_of, pinned_inputs
from gkd_core.versioning.pins import PinnedInputs
from gkd_core.versioning.workspace import WORKSPACES, anchor_paths, create_workspace, workspace_in_use


def fingerprint_now(project: Path, settings: Settings) -> Fingerprint:
    """The fingerprint that a run would have if it began now. Nothing is trained, fetched or copied.

    Raises:
        DataError: a dataset is neither here nor pinned.
        PlatformError: DVC cannot look at an input.
    """
    recipe = Recipe.of(anchor_paths(settings, project))
    pinned = pinned_inputs(project, recipe)
    loose = loose_inputs(project, recipe, pinned)
    digests = input_digests_now(project, recipe.settings, loose) if loose else {}
    return fingerprint_of(recipe, pin_digests(pinned) | digests)


def input_digests_now(project: Path, settings: Settings, paths: Sequence[Path]) -> dict[str, str]:
    """DVC's digest of each of these inputs of the plan, as `dvc.lock` would state it.

    DVC looks from a workspace that lasts as long as the look, so that names and rules are those of a run.

    Raises:
        PlatformError: DVC cannot look at one of them.
    """
    (project / WORKSPACES).mkdir(parents=True, exist_ok=True)
    name = Path(tempfile.mkdtemp(prefix="look-", dir=project / WORKSPACES))
    name.rmdir()  # `create_workspace` makes it
    workspace = create_workspace(project, name.name, settings)
    try:
        with workspace_in_use(workspace):
            return _ask(workspace, [path.as_posix() for path in paths])
    finally:
        shutil.rmtree(workspace)


def pin_digests(pinned: PinnedInputs) -> dict[str, str]:
    """The digest of each pin, by path."""
    return {pin.path: pin.md5 for pin in pinned.pins}


def loose_inputs(project: Path, recipe: Recipe, pinned: PinnedInputs) -> list[Path]:
    """What a plan reads that no stage makes and no pin covers."""
    covered = [project / pin.path for pin in pinned.pins]
    return [path for path in inputs_of(recipe.plan) if not any((project / path).is_relative_to(pin) for pin in covered)]


def _ask(workspace: Path, paths: list[str]) -> dict[str, str]:
    wanted = workspace / "wanted.json"
    wanted.write_text(json.dumps(paths), encoding="utf-8")
    with dvc_process("the data", "digest_process", [str(wanted)], workspace) as dvc:
        answer: dict[str, str] = json.loads(dvc.hear())
    if "failed" in answer:
        raise PlatformError(f"DVC cannot look at the data: {answer['failed']}")
    return answer
