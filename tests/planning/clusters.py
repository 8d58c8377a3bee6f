"""A stage and a cluster whose times can be reckoned by hand: a view takes 0.1 s on one worker, and nothing else takes time."""

from __future__ import annotations

import dataclasses
from typing import Any

from gkd_core.models.flops import Cost
from gkd_core.planning.cluster import Cluster
from gkd_core.planning.counts import ImageSize
from gkd_core.planning.demand import Demand
from gkd_core.planning.work import StageWork

FREE = 1e12  # a bandwidth or rate that costs no time worth a digit

WORK = StageWork("distill-proxy", 3200, 64, 100, 6400, {"teacher": Cost(0, 60e9), "student": Cost(10_000_000, 40e9)})
DEMAND = Demand(
    work=WORK,
    section="distill_proxy",
    workers=None,
    references=("imagenet/train",),
    image=ImageSize(100_000, 200_000, 0),
    crop_pixels=50_000,
    augment="released",
    repeats=1,
    lanes=None,
    bucket_cache=None,
    loaders=4,
    precision="bf16",
    accumulate=1,
    checkpoint_every=None,
    gradient_bytes=40_000_000,
    backward_share=0.25,
    state_bytes=160_000_000,
)
CLUSTER = Cluster(
    nodes=1,
    gpus_per_node=4,
    peak_tflops=1,
    mfu=1,
    intra_bandwidth=FREE,
    inter_bandwidth=FREE,
    cores_per_node=8,
    jpeg_megapixels=FREE,
    png_megapixels=FREE,
    released_megapixels=FREE,
    light_megapixels=FREE,
    storage_node_bandwidth=FREE,
    checkpoint_bandwidth=FREE,
)


def stage(**changes: Any) -> Demand:
    return dataclasses.replace(DEMAND, **changes)


def cluster(**changes: Any) -> Cluster:
    return Cluster.model_validate(CLUSTER.model_dump() | changes)
