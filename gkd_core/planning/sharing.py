"""How many hosts can share a stage's batches: each worker gets equally many images, and each a lane's."""

from __future__ import annotations

from collections.abc import Iterable

from gkd_core.errors import SettingsError
from gkd_core.planning.cluster import Cluster
from gkd_core.planning.demand import Demand


def possible_nodes(demand: Demand, cluster: Cluster) -> list[int]:
    """Numbers of whole hosts among whose workers a batch divides, in ascending order; empty where not even one will do."""
    most = demand.work.batch_size // cluster.gpus_per_node
    return [nodes for nodes in range(1, most + 1) if _divides(demand, nodes * cluster.gpus_per_node)]


def check_workers(demands: Iterable[Demand], cluster: Cluster) -> None:
    """See that the workers of a cluster can share every stage's batches.

    Raises:
        SettingsError: they cannot; names the nearest numbers of hosts that could, one line a stage.
    """
    lines = [_refusal(demand, cluster) for demand in demands if not _possible(demand, cluster)]
    if lines:
        raise SettingsError("\n".join(lines))


def _possible(demand: Demand, cluster: Cluster) -> bool:
    return demand.workers is not None or _divides(demand, cluster.workers)


def _divides(demand: Demand, workers: int) -> bool:
    lanes, batch = demand.lanes, demand.work.batch_size
    return batch % (workers * demand.accumulate) == 0 and (lanes is None or (lanes % workers == 0 and batch % lanes == 0))


def _refusal(demand: Demand, cluster: Cluster) -> str:
    possible = possible_nodes(demand, cluster)
    below = [nodes for nodes in possible if nodes < cluster.nodes][-1:]
    above = [nodes for nodes in possible if nodes > cluster.nodes][:1]
    nearest = " or ".join(f"{nodes} ({nodes * cluster.gpus_per_node} workers)" for nodes in below + above) or "none"
    cut = "" if demand.accumulate == 1 else f" in {demand.accumulate} parts"
    lanes = "" if demand.lanes is None else f" and {demand.lanes} lanes (data.streaming)"
    return (
        f"--nodes {cluster.nodes}: {demand.name}: batches of {demand.work.batch_size} images{cut}{lanes} do not divide among "
        f"{cluster.workers} workers; nearest possible --nodes: {nearest}; or choose another {demand.section}.batch_size"
    )
