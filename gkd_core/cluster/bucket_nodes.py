"""Nodes that share a bucket with each other, and nothing else."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from filelock import FileLock
from pyarrow.fs import S3FileSystem

from gkd_core.cluster.job_log import wire_sink
from gkd_core.cluster.job_package import CHECKPOINTS, INPUTS
from gkd_core.storage.client import connect
from gkd_core.storage.keys import Location
from gkd_core.storage.trees import download_tree
from gkd_core.storage.upload import upload_file
from gkd_core.system.own import make_own_folder
from gkd_core.training.cost import FOLDER as COSTS
from gkd_core.training.cost import WORKER
from gkd_core.training.metrics import MetricsSink

SCRATCH = "GKD_SCRATCH"  # folder of each node's own disk, at one path on all nodes


def join_as_job() -> None:
    """Join the cluster whose job this process is. What workers write, metrics among it, reaches the job's log, which is all that
    its submitter sees."""
    ray.init(address="auto", log_to_driver=True)


def has_gpu() -> bool:
    """Whether the cluster that was joined has a GPU: its head, where a job runs, may have none while its workers do."""
    return bool(ray.cluster_resources().get("GPU", 0))


def node_workspace(name: str) -> Path:
    """The folder of this node that stands for the workspace of a piece of work, at the same path on each node."""
    return Path(os.environ.get(SCRATCH) or tempfile.gettempdir()) / f"gkd-{os.getuid()}" / name


@dataclass(frozen=True)
class BucketNodes:
    """Inputs are fetched by each node, checkpoints go to the bucket, metrics to the log. It holds no credentials: each node has
    its own.

    Attributes:
        place: prefix of the piece of work.
        workspace: the folder of every node that stands for the workspace.
        has_inputs: whether the stage reads anything.
    """

    place: Location
    workspace: Path
    has_inputs: bool

    def storage(self, folder: Path) -> tuple[str, Any]:
        checkpoints = self.place / CHECKPOINTS
        return f"{checkpoints.bucket}/{checkpoints.key}", ray_file_system()

    def prepare(self) -> None:
        """Fetch the stage's inputs, once for all workers of a node.

        Raises:
            GkdError: the bucket lacks them, refuses or fails.
        """
        make_own_folder(self.workspace.parent, f"set {SCRATCH} to a folder of this user's own")
        self.workspace.mkdir(exist_ok=True)
        if not self.has_inputs:
            return
        with FileLock(self.workspace / ".fetching", fallback_to_soft=False):
            download_tree(connect(), self.place / INPUTS, self.workspace)

    def sink(self, folder: Path) -> MetricsSink:
        return wire_sink()

    def finish(self, folder: Path) -> None:
        # Of the workers alone: of the stage's own process there is one here too, but its time is that of the one at home.
        client = connect()
        for note in (folder / COSTS).glob(f"{WORKER}*.json"):
            upload_file(client, note, self.place / COSTS / note.name)


def ray_file_system() -> S3FileSystem:
    """The store that AWS_ENDPOINT_URL names, as Ray's own transfers see it; credentials are looked up where it is used."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not endpoint:
        return S3FileSystem(region=region)
    parts = urlsplit(endpoint)
    return S3FileSystem(endpoint_override=parts.netloc, scheme=parts.scheme or "https", region=region or "us-east-1")
