"""The pinned inputs of a run: which they are, their revision in git, and their fetching by a DVC in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from gkd_core.errors import DataError, PlatformError, TransientError
from gkd_core.paths import ARTIFACTS
from gkd_core.stages import Recipe, StageRun
from gkd_core.system.git import git
from gkd_core.versioning.dvc_process import dvc_process
from gkd_core.versioning.pins import Pin, PinnedInputs, pins_of

RECORD = Path("pins.json")  # in the workspace
Say = Callable[[str], None]


def inputs_of(runs: Sequence[StageRun]) -> list[Path]:
    """What a plan reads that none of its stages makes, in the order of the stages."""
    paths = dict.fromkeys(path for run in runs for path in run.inputs)
    return [path for path in paths if path.is_absolute() or path.parts[:1] != ARTIFACTS.parts]


def pinned_inputs(project: Path, recipe: Recipe, paths: Sequence[str] | None = None) -> PinnedInputs:
    """The pins of what a run reads, weights and catalogs too, each with its revision; and the datasets that have none.

    Args:
        paths: these instead of what the run reads.

    Raises:
        DataError: a pin is broken, or a dataset is neither here nor pinned.
    """
    found = pins_of(project, inputs_of(recipe.plan) if paths is None else map(Path, paths))
    root = recipe.settings.data.root or recipe.settings.data.shards
    unpinned = tuple(path for path in found.unpinned if root is not None and (project / path).is_relative_to(project / root))
    absent = [path for path in unpinned if not (project / path).exists()]
    if absent:
        raise DataError(
            "\n".join(
                f"{path}: not here, and not pinned (no {path}.dvc); bring it in with gkd data add, or check data.root"
                for path in absent
            )
        )
    pins = tuple(pin.model_copy(update={"revision": committed_revision(project, pin.file)}) for pin in found.pins)
    return PinnedInputs(pins=pins, unpinned=unpinned)


def committed_revision(project: Path, file: str) -> str | None:
    """The git commit that last changed a file; None outside of git, and where the file has changes since."""
    if git(project, "status", "--porcelain", "--", file) != "":
        return None
    return git(project, "log", "-1", "--format=%H", "--", file) or None


def fetch_pinned(project: Path, record: Path, say: Say) -> list[Pin]:
    """Bring the pinned inputs of a run here, and refuse those that are here but not as pinned.

    Args:
        record: file with the run's `PinnedInputs`.
        say: is told now and then how far it is.

    Returns:
        the pins whose content was fetched.

    Raises:
        DataError: an input is not as pinned, or its remote does not have it whole; one line each.
        PlatformError: DVC or its remote cannot be used.
        TransientError: the remote does not answer, or DVC was killed.
    """
    pins = PinnedInputs.read(record).pins
    if not pins:
        return []
    with dvc_process("fetch-data", "fetch_process", [str(record)], project) as dvc:
        while True:
            word = json.loads(dvc.hear())
            if "step" in word:
                say(f"{word['path']}: {word['step']}, {word['done']} of {word['total']} files")
            elif "refused" in word:
                raise DataError(word["refused"])
            elif "unanswered" in word:
                raise TransientError(word["unanswered"])
            elif "failed" in word:
                raise PlatformError(word["failed"])
            else:
                return [pin for pin in pins if pin.path in word["fetched"]]
