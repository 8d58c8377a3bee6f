"""The program that a Ray cluster runs for us: one stage of the recipe, in a folder of the node that stands for the workspace.

It is started by the Jobs API in the folder that `job_package.pack` has laid out. The bucket's address and credentials come
from the node's own environment, so that they are in no job description.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gkd_core.cluster.bucket_nodes import BucketNodes, has_gpu, join_as_job, node_workspace
from gkd_core.cluster.job_log import say_error, say_result
from gkd_core.cluster.job_package import JOB, TASK, RemoteTask, result_of
from gkd_core.cluster.nodes import nodes
from gkd_core.errors import GkdError, PlatformError
from gkd_core.paths import PARAMS
from gkd_core.records import sha256_of
from gkd_core.settings import Settings, load_settings
from gkd_core.stages.recipe import Recipe
from gkd_core.stages.work import run_stage
from gkd_core.storage.client import connect
from gkd_core.storage.keys import Location
from gkd_core.storage.trees import upload_tree
from gkd_core.storage.upload import write_once
from gkd_core.untrusted import PLAIN_NAME


def main() -> int:
    """Run the task that lies in the current folder; 0 when its result is in the bucket, 1 when it failed and said why."""
    join_as_job()
    try:
        task = RemoteTask.read(Path(TASK))
        job = _own_id()
        recipe = Recipe.of(_of_this_cluster(load_settings(PARAMS)))
        run = recipe.find(task.stage, task.source)
        workspace = node_workspace(task.name)
        place = BucketNodes(Location.parse(task.place), workspace, bool(run.inputs))
        place.prepare()
        nodes.set(place)
        run_stage(recipe, run, workspace)
        send_output(workspace / run.output, result_of(place.place, job))
    except GkdError as error:
        say_error(error)
        return 1
    return 0


def _of_this_cluster(settings: Settings) -> Settings:
    """`device: auto` settled by what the cluster has."""
    if settings.compute.device != "auto":
        return settings
    device = "cuda" if has_gpu() else "cpu"
    return settings.model_copy(update={"compute": settings.compute.model_copy(update={"device": device})})


def _own_id() -> str:
    """The job's id, as its submitter has put it into our environment."""
    name = os.environ.get(JOB, "")
    if not PLAIN_NAME.fullmatch(name):
        raise PlatformError(f"{JOB}: unset, or not a job's id; jobs are to be started by gkd, which sets it")
    return name


def send_output(folder: Path, place: Location) -> None:
    """Put the stage's output into the bucket, each file once, and last of all tell their digests, by the job's own log."""
    upload_tree(write_once(connect()), folder, place)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    say_result({path.relative_to(folder).as_posix(): sha256_of(path) for path in files})


if __name__ == "__main__":
    sys.exit(main())
