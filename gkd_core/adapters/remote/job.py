"""The program that a Ray cluster runs for us: one stage of the recipe, in a folder of the node that stands for the workspace.

It is started by the Jobs API in the folder that `parcel.pack` has laid out. The bucket's address and credentials come from the
node's own environment, so that they are in no job description.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from pathlib import Path

from gkd_core.adapters.remote.parcel import INPUTS, OUTPUT, PARAMS, RESULT, TASK, RemoteResult, RemoteTask
from gkd_core.adapters.remote.wire import say_error
from gkd_core.adapters.s3.client import connect
from gkd_core.adapters.s3.keys import Location
from gkd_core.adapters.s3.trees import download_tree, upload_tree
from gkd_core.adapters.s3.upload import upload_file
from gkd_core.errors import GkdError
from gkd_core.records import sha256_of
from gkd_core.settings import load_settings
from gkd_core.stages.recipe import StageRun, find_run, run_stage

SCRATCH = "GKD_SCRATCH"  # folder of a node's own disk, the same path on all nodes


def main() -> int:
    """Run the task that lies in the current folder; 0 when its result is in the bucket, 1 when it failed and said why."""
    try:
        task = RemoteTask.read(Path(TASK))
        settings = load_settings(Path(PARAMS))
        run = find_run(settings, task.stage, task.source)
        workspace = node_workspace(task.name)
        fetch_inputs(task.place, run, workspace)
        run_stage(settings, run, workspace)
        send_output(workspace / run.output, Location.parse(task.place))
    except GkdError as error:
        say_error(error)
        return 1
    return 0


def node_workspace(name: str) -> Path:
    """The folder of this node that stands for the workspace, at the same path on each node."""
    return Path(os.environ.get(SCRATCH) or tempfile.gettempdir()) / f"gkd-{os.getuid()}" / name


def fetch_inputs(place: str, run: StageRun, workspace: Path) -> None:
    """Bring a stage's inputs to this node, once for all of its workers.

    Raises:
        GkdError: the bucket lacks them, refuses or fails.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    with (workspace / ".fetching").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if run.inputs:
            download_tree(connect(), Location.parse(place) / INPUTS, workspace)


def send_output(folder: Path, place: Location) -> None:
    """Put the stage's output into the bucket, and last of all the list of its files with their digests."""
    client = connect()
    upload_tree(client, folder, place / OUTPUT)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    result = RemoteResult(files={path.relative_to(folder).as_posix(): sha256_of(path) for path in files})
    with tempfile.TemporaryDirectory() as temporary:
        record = Path(temporary) / RESULT
        result.write(record)
        upload_file(client, record, place / RESULT)


if __name__ == "__main__":
    sys.exit(main())
