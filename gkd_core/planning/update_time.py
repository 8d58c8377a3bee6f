"""How long one update takes: what runs side by side, and what is waited for.

An update computes, then waits for the slowest worker and for the gradients on the network. Meanwhile the next batch is made and
fetched, so that these three take as long as the slowest of them. Expectations stand for what is random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gkd_core.planning.chance import expected_maximum
from gkd_core.planning.cluster import Cluster
from gkd_core.planning.collectives import exposed_seconds
from gkd_core.planning.demand import Demand
from gkd_core.planning.paces import Pace


@dataclass(frozen=True)
class Team:
    """The workers of a stage run, on the hosts of a cluster, and what each of them does in an update.

    Attributes:
        pace: how fast one worker computes by a benchmark; None where it follows from FLOPs.
        views: images (in evaluation, windows) that a worker computes on.
        images: images that a worker reads for them.
    """

    demand: Demand
    cluster: Cluster
    workers: int
    pace: Pace | None
    views: float
    images: float

    @property
    def nodes(self) -> int:
        return self.cluster.nodes_of(self.workers)

    @property
    def local(self) -> int:
        """Workers of a host."""
        return min(self.workers, self.cluster.gpus_per_node)

    @property
    def together(self) -> bool:
        """Whether several workers share each update, and so wait for one another."""
        return self.workers > 1 and self.demand.workers is None

    def fixed_seconds(self) -> float:
        """Seconds of an update that its images do not change."""
        return self.cluster.update_floor if self.pace is None else self.pace.update_seconds

    def arithmetic_seconds(self, views: float) -> float:
        """Seconds that a worker computes on so many views, alone on its host."""
        if self.pace is not None:
            return views / self.pace.images_per_second
        cluster, fp32 = self.cluster, self.demand.precision == "fp32"
        peak = cluster.fp32_tflops if fp32 and cluster.fp32_tflops is not None else cluster.peak_tflops
        return views * self.demand.work.flops_of_a_view / (peak * 1e12 * cluster.mfu)

    def compute_seconds(self) -> float:
        """Seconds of an update's arithmetic. By FLOPs, launches overlap with it; by a benchmark, both add up."""
        fixed, varying = self.fixed_seconds(), self.arithmetic_seconds(self.views)
        alone = max(fixed, varying) if self.pace is None else fixed + varying
        crowding = (self.cluster.contention - 1) * (self.local - 1) / max(1, self.cluster.gpus_per_node - 1)
        return alone * (1 + crowding)


@dataclass(frozen=True)
class UpdateTime:
    """One update (in evaluation, one image of each worker), in seconds.

    Attributes:
        compute: a worker's arithmetic.
        straggling: waiting for the slowest worker.
        exchange: waiting for the gradients.
        waiting_for_input, waiting_for_storage: waiting for a batch whose images are still being made, or fetched.
        limit: what the others wait for: compute (or launches, where its images are too few to matter), input, storage.
    """

    compute: float
    straggling: float
    exchange: float
    waiting_for_input: float
    waiting_for_storage: float
    limit: str

    @property
    def seconds(self) -> float:
        return self.compute + self.straggling + self.exchange + self.waiting_for_input + self.waiting_for_storage


def update_time(team: Team, fetched: float) -> UpdateTime:
    """The time of an update in which each host fetches so many bytes."""
    demand, cluster, workers = team.demand, team.cluster, team.workers
    compute, making = team.compute_seconds(), _making_seconds(team)
    straggling = compute * cluster.straggling * expected_maximum(workers) if team.together else 0.0
    backward = compute * demand.backward_share / demand.accumulate
    exchange = exposed_seconds(demand.gradient_bytes, workers, cluster, backward) if team.together else 0.0
    busy = compute + straggling + exchange
    with_input = max(busy, making) if demand.loaders else busy + making
    fetching = fetched / (min(cluster.storage_node_bandwidth, _share(cluster.storage_bandwidth, team.nodes)) * 1e9)
    few = team.fixed_seconds() > team.arithmetic_seconds(team.views)
    alone = {"launches" if few else "compute": compute, "input": making, "storage": fetching}
    return UpdateTime(
        compute=compute,
        straggling=straggling,
        exchange=exchange,
        waiting_for_input=0.0 if fetching >= with_input else with_input - busy,
        waiting_for_storage=fetching - busy if fetching >= with_input else 0.0,
        limit=max(alone, key=lambda name: alone[name]),
    )


def _making_seconds(team: Team) -> float:
    """Seconds until the images of all of a host's workers are made, by as many cores as have a process for it."""
    demand, cluster = team.demand, team.cluster
    makers = min(cluster.cores_per_node, team.local * max(1, demand.loaders))
    return team.images * team.local * _core_seconds(demand, cluster) / makers


def _share(bandwidth: float | None, nodes: int) -> float:
    """A host's share of what all have together."""
    return math.inf if bandwidth is None else bandwidth / nodes


def _core_seconds(demand: Demand, cluster: Cluster) -> float:
    """Seconds of a core for one training image: decoding it, and its crop."""
    crops = cluster.released_megapixels if demand.augment == "released" else cluster.light_megapixels
    decoding = demand.image.jpeg_pixels / cluster.jpeg_megapixels + demand.image.png_pixels / cluster.png_megapixels
    return (decoding + demand.crop_pixels / crops) / 1e6
