"""The machine that does the work, and where it is written down."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gkd_core.settings.base import NonNegativeInt, PositiveInt, Section


class ComputeSettings(Section):
    """The machine that does the work."""

    workers: NonNegativeInt = Field(2, description="Ray Train workers of stage one; 0 trains in this process.")
    max_workers: PositiveInt | None = Field(
        None,
        description="Most workers of an elastic group: as many as there is room for, from `workers` up, of which those train "
        "that share the batch evenly. The result then depends on how many there were. null: always `workers`.",
    )
    address: str = Field(
        "local",
        pattern=r"^(local|https?://[^\s@]+)$",
        description="Where stage one runs: 'local', or the Jobs API of a Ray cluster, such as http://head:8265.",
    )
    storage: str | None = Field(
        None,
        pattern=r"^s3://[^\s/]+(/\S+)?$",
        description="Bucket and prefix that a cluster elsewhere shares with us, for inputs, checkpoints and results.",
    )
    threads: PositiveInt = Field(
        1, description="Threads of one training process. Part of the result: a sum's order depends on it."
    )
    loaders: NonNegativeInt = Field(
        0, description="Processes that make stage one's batches ahead, for each worker; 0 makes them in it. Changes speed only."
    )
    teacher_cache_bytes: NonNegativeInt = Field(
        4 * 1024**3,
        description="Room in a stage's run folder for the teacher's tokens of fixed views; what does not fit is computed again.",
    )
    shard_cache: str = Field(
        "~/.cache/gkd/shards",
        pattern=r"^[/~]",
        description="Folder of each machine's own disk for shards that lie in a bucket; absolute, or below ~.",
    )
    shard_cache_bytes: PositiveInt = Field(
        64 * 1024**3, description="Room in it, for all processes of a machine together; the longest unused shards go first."
    )
    stages_at_once: PositiveInt = Field(
        1, description="Stages of one kind (one a source) that the flow runs side by side; Ray's run one by one."
    )
    keep_workspaces: PositiveInt = Field(
        5, description="Workspaces of flow runs that are kept, the newest; older ones are swept."
    )
    keep_hours: float = Field(
        24.0, ge=0, description="Hours for which a workspace is kept in any case, since its run last wrote to it."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device of the tensors; auto takes a GPU where there is one."
    )
    start_minutes: float = Field(
        15.0,
        gt=0,
        le=1440,
        description="Minutes for Ray to give a stage its workers, before it fails and says what is missing. Give more where an "
        "autoscaler has to bring nodes that are scarce.",
    )
    max_failures: NonNegativeInt = Field(2, description="Times that a lost Ray worker group is rebuilt before the stage fails.")

    @property
    def elsewhere(self) -> bool:
        """Whether stage one is given to a cluster that is not ours."""
        return self.address != "local"

    @property
    def most_workers(self) -> int:
        """How many workers stage one has at most."""
        return self.max_workers or self.workers

    @model_validator(mode="after")
    def _cluster(self) -> Self:
        if self.elsewhere and self.storage is None:
            raise ValueError(
                "address: a cluster elsewhere needs storage, a bucket that it shares with us, such as s3://bucket/runs"
            )
        if self.max_workers is not None and not 0 < self.workers <= self.max_workers:
            raise ValueError(
                f"max_workers: {self.max_workers} is less than workers, or workers is 0; give 0 < workers <= max_workers"
            )
        return self


class TrackingSettings(Section):
    """MLflow. The store's address comes from MLFLOW_TRACKING_URI where that is set."""

    experiment: str = Field("gkd", min_length=1, description="MLflow experiment.")
    uri: str | None = Field(
        None,
        description="Tracking store, such as sqlite:///mlflow.db; null is a file of the project. Never put a password here.",
    )
