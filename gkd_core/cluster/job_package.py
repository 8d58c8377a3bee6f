"""What travels with a stage: our code and the settings by Ray's runtime environment, its inputs by the bucket."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from gkd_core.errors import SettingsError
from gkd_core.files import atomic_file
from gkd_core.paths import PARAMS
from gkd_core.records import Record
from gkd_core.settings import Settings, dump_settings
from gkd_core.storage.client import connect
from gkd_core.storage.keys import Location
from gkd_core.storage.trees import upload_tree
from gkd_core.storage.upload import upload_file
from gkd_core.untrusted import PlainName

PACKAGE = Path(__file__).parents[1]
TASK = "task.json"
INPUTS = "inputs"
OUTPUT = "output"
CHECKPOINTS = "ray"
JOB = "GKD_JOB"  # variable of a job's environment: its own id
NOT_CODE = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def result_of(place: Location, job: str) -> Location:
    """Where a job puts its result: a prefix of its own, as what is handed over is written once. A later job of the same work
    has another."""
    return place / OUTPUT / job


class RemoteTask(Record):
    """What the cluster is asked to do.

    Attributes:
        stage, source: the stage of the plan.
        place: the prefix in the bucket that inputs, checkpoints and the result of this very work have to themselves.
        name: name and digest of the work; the folder of a node that stands for the workspace is called by it.
    """

    stage: PlainName
    source: PlainName | None
    place: str
    name: PlainName


@dataclass(frozen=True)
class RemoteWork:
    """One stage to hand over, with where it would work here.

    Attributes:
        inputs: files and folders that it reads, relative to the workspace.
        workspace, output, run_folder: absolute.
    """

    settings: Settings
    stage: str
    source: str | None
    inputs: tuple[Path, ...]
    workspace: Path
    output: Path
    run_folder: Path

    @property
    def name(self) -> str:
        """Name and digest of the work."""
        return self.run_folder.name


def place_of(settings: Settings, name: str) -> Location:
    """The prefix of one piece of work, by its name and digest.

    Raises:
        SettingsError: the settings name no bucket.
    """
    if settings.compute.storage is None:
        raise SettingsError(
            "compute.storage: a cluster elsewhere needs a bucket that it shares with us, such as s3://bucket/runs"
        )
    return Location.parse(settings.compute.storage) / name


def send_inputs(work: RemoteWork, place: Location) -> None:
    """Put what the stage reads, and what lies in the workspace, where every node can fetch it; unchanged files stay.

    Raises:
        SettingsError: an input lies outside the workspace, where no node would find it.
        GkdError: the bucket refuses or fails.
    """
    client = connect()
    for path in work.inputs:
        if path.is_absolute():
            raise SettingsError(
                f"compute.address: {path} lies on this machine only; for a cluster elsewhere set data.shards to s3://…, or keep "
                "the file below the project"
            )
        local = work.workspace / path
        if local.is_dir():
            upload_tree(client, local, place / INPUTS / path.as_posix())
        else:
            upload_file(client, local, place / INPUTS / path.as_posix())


def pack(work: RemoteWork, place: Location, folder: Path) -> None:
    """Lay out what Ray is to unpack on the cluster: the package, the settings as the cluster is to see them, and the task."""
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=NOT_CODE)
    # On the cluster its own nodes are the place to work.
    compute = work.settings.compute.model_copy(update={"address": "local"})
    settings = work.settings.model_copy(update={"compute": compute})
    with atomic_file(folder / PARAMS) as temporary:
        temporary.write_text(dump_settings(settings), encoding="utf-8")
    RemoteTask(stage=work.stage, source=work.source, place=str(place), name=work.name).write(folder / TASK)
