"""A whole run on a cluster: the stages as the flow runs them, what it costs, and how far more hosts would help."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gkd_core.errors import SettingsError
from gkd_core.planning.cluster import Cluster
from gkd_core.planning.demand import Demand
from gkd_core.planning.paces import NOTHING, Paces
from gkd_core.planning.simulate import StageEstimate, simulate_stage
from gkd_core.planning.work import SECONDS_IN_AN_HOUR

HOURS_IN_A_MONTH = 730
CHECKPOINTS_KEPT = 2  # by Ray Train, of each stage


@dataclass(frozen=True)
class Reach:
    """How far a stage that all workers share can go with this batch, in whole hosts of this cluster.

    Attributes:
        most: the most workers that its batch divides among; 0 where there are none.
        fastest: the workers with which it takes least.
    """

    name: str
    most: int
    fastest: int


@dataclass(frozen=True)
class RunEstimate:
    """A run. Bytes are of the whole run; costs are in the currency of the cluster's prices.

    Attributes:
        stages: those whose number of views is known.
        unknown: names of the others, which no sum has in it.
        waves: names of the stages that run side by side, one group after the other.
        seconds: from the first wave to the end of the last.
        gpu_hours: of all GPUs for all that time, whether they compute or wait.
        efficiency: share of them in which a GPU does the models' arithmetic.
        costs: gpus, storage for as long as the run takes, requests, and their sum.
        dataset_bytes, checkpoint_bytes: what lies in storage during the run: all images, and the checkpoints that are kept.
        storage_month: what keeping both for a month costs.
        reach: of each stage that all workers share.
    """

    stages: tuple[StageEstimate, ...]
    unknown: tuple[str, ...]
    waves: tuple[tuple[str, ...], ...]
    seconds: float
    gpu_hours: float
    efficiency: float
    costs: dict[str, float]
    dataset_bytes: float
    checkpoint_bytes: float
    storage_month: float
    reach: tuple[Reach, ...]

    def as_tree(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return dataclasses.asdict(self)


def estimate_run(
    demands: Sequence[Demand],
    waves: Sequence[Sequence[str]],
    cluster: Cluster,
    paces: Paces = NOTHING,
    max_failures: int = 0,
) -> RunEstimate:
    """Simulate a run.

    Args:
        waves: names of the stage runs, grouped as the flow runs them side by side.
        max_failures: lost worker groups that a stage survives.

    Raises:
        SettingsError: the workers cannot share a batch, or a stage cannot run like this.
    """
    check_workers(demands, cluster)
    known = [demand for demand in demands if demand.work.views is not None]
    stages = {demand.name: simulate_stage(demand, cluster, paces, max_failures) for demand in known}
    grouped = tuple(tuple(name for name in wave if name in stages) for wave in waves)
    seconds = sum(_wave_seconds([stages[name].seconds for name in wave], cluster) for wave in grouped)
    hours = seconds / SECONDS_IN_AN_HOUR
    useful = sum(stage.useful_seconds for stage in stages.values())
    dataset, checkpoints = _dataset_bytes(known), float(CHECKPOINTS_KEPT * sum(demand.state_bytes for demand in known))
    month = (dataset + checkpoints) / 1e9 * cluster.price_gb_month
    return RunEstimate(
        stages=tuple(stages.values()),
        unknown=tuple(demand.name for demand in demands if demand.name not in stages),
        waves=tuple(wave for wave in grouped if wave),
        seconds=seconds,
        gpu_hours=hours * cluster.workers,
        efficiency=useful / (seconds * cluster.workers) if seconds else 1.0,
        costs=_costs(list(stages.values()), hours, month, cluster),
        dataset_bytes=dataset,
        checkpoint_bytes=checkpoints,
        storage_month=month,
        reach=tuple(_reach(demand, cluster, paces) for demand in known if demand.workers is None),
    )


def _wave_seconds(seconds: Sequence[float], cluster: Cluster) -> float:
    """Stages side by side: on CPUs each has a core; on GPUs they are processes of one host that all take its first GPU."""
    at_once = 1 if cluster.device == "cuda" else cluster.gpus_per_node
    return max([*seconds, sum(seconds) / at_once]) if seconds else 0.0


def _costs(stages: Sequence[StageEstimate], hours: float, month: float, cluster: Cluster) -> dict[str, float]:
    costs = {
        "gpus": hours * cluster.workers * cluster.price_gpu_hour,
        "storage": month * hours / HOURS_IN_A_MONTH,
        "requests": sum(stage.reads for stage in stages) / 1000 * cluster.price_thousand_reads
        + sum(stage.writes for stage in stages) / 1000 * cluster.price_thousand_writes,
    }
    return costs | {"all": sum(costs.values())}


def _dataset_bytes(demands: Sequence[Demand]) -> float:
    """All images that are read, those that several stages read once."""
    sizes: dict[tuple[str, ...], float] = {}
    for demand in demands:
        sizes[demand.references] = max(sizes.get(demand.references, 0.0), demand.data_bytes)
    return sum(sizes.values())


def _reach(demand: Demand, cluster: Cluster, paces: Paces) -> Reach:
    nodes = possible_nodes(demand, cluster)
    if not nodes:
        return Reach(demand.name, 0, 0)

    def seconds(count: int) -> float:
        return simulate_stage(demand, cluster.model_copy(update={"nodes": count}), paces).seconds

    return Reach(demand.name, nodes[-1] * cluster.gpus_per_node, min(nodes, key=seconds) * cluster.gpus_per_node)


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
