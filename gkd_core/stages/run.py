"""One stage to run: what it reads and writes, and where it keeps its checkpoints."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from gkd_core.data.files.folders import files_below
from gkd_core.paths import RUNS
from gkd_core.records import sha256_of
from gkd_core.settings import Settings


@dataclass(frozen=True)
class StageRun:
    """One stage to run, for one source domain where the stage has one.

    Attributes:
        stage: name of the stage, such as `distill-source`.
        source: name of the source dataset, or None for stages shared by all sources.
        inputs: files and folders whose content the result depends on.
        params: keys of `params.yaml` that the result depends on.
        output: the folder that the stage writes.
        always: it looks at what nobody here can see change, a bucket, and so it runs each time; what depends on it does not,
            where it leaves the same.
        named: those of the inputs that other stages have written, by what this stage calls them.
    """

    stage: str
    source: str | None
    inputs: tuple[Path, ...]
    params: tuple[str, ...]
    output: Path
    always: bool = False
    named: tuple[tuple[str, Path], ...] = ()

    def input(self, name: str) -> Path:
        """The folder of an earlier stage, relative to the workspace.

        Raises:
            KeyError: the stage does not have it under these settings.
        """
        return dict(self.named)[name]

    def has_input(self, name: str) -> bool:
        """Whether the stage reads this one under these settings."""
        return name in dict(self.named)

    @property
    def name(self) -> str:
        """Unique name, and the stage's name in `dvc.yaml`."""
        return self.stage if self.source is None else f"{self.stage}-{self.source}"

    @property
    def command(self) -> str:
        """The command line that runs it in the workspace."""
        return shlex.join(["gkd", "run", self.stage, *(() if self.source is None else ("--source", self.source))])


def params_of(settings: Settings, run: StageRun) -> dict[str, object]:
    """The settings that a stage's result depends on, as plain values by their keys in `params.yaml`."""
    tree = settings.model_dump(mode="json")
    return {key: _lookup(tree, key) for key in run.params}


def run_folder(settings: Settings, run: StageRun, workspace: Path) -> Path:
    """Where a stage keeps checkpoints and `metrics.jsonl`: `RUNS/<name>-<digest of its inputs>`, absolute.

    The digest covers the stage's settings, the content of files among its inputs (weights, catalogs, lists) and of records
    in its input folders (a manifest states the digest of the weights beside it), and the names and sizes of all else in
    those folders, so that a stopped run is found again only by its equal.
    """
    facts = {"params": params_of(settings, run), "inputs": [_listing(workspace / path) for path in run.inputs]}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return (workspace / RUNS).resolve() / f"{run.name}-{digest}"


def _lookup(tree: object, dotted: str) -> object:
    for part in dotted.split("."):
        tree = tree[part] if isinstance(tree, dict) else None
    return tree


def _listing(path: Path) -> list[list[object]]:
    """Names of the files at a path, each with its size, or its digest where it is a record or the path itself."""
    if path.is_file():
        return [["", sha256_of(path)]]
    files = files_below(path) if path.is_dir() else ()
    return [[item.relative_to(path).as_posix(), _fact(item)] for item in sorted(files)]


def _fact(file: Path) -> object:
    if file.suffix == ".json":
        return sha256_of(file)
    return file.stat().st_size
