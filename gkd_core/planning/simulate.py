"""One stage run on a cluster: its updates, checkpoints, start and failures; what it waits for, and what it moves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gkd_core.errors import SettingsError
from gkd_core.planning.chance import more_than
from gkd_core.planning.cluster import Cluster
from gkd_core.planning.collectives import bytes_between_nodes
from gkd_core.planning.demand import Demand
from gkd_core.planning.fetching import Fetching, fetching_of
from gkd_core.planning.paces import NOTHING, Paces
from gkd_core.planning.update_time import Team, UpdateTime, update_time

PART_BYTES = 16 * 1024**2  # of an upload, each a request


@dataclass(frozen=True)
class StageEstimate:
    """One stage run on so many workers.

    Attributes:
        seconds: all that it takes; `parts` adds up to it.
        limit: the resource that more of would help most.
        efficiency: the arithmetic of one worker that waits for nothing, over workers × seconds. Never above 1.
        useful_seconds: that arithmetic.
        update_seconds: of an update after the first pass.
        failures: expected losses of a host.
        given_up: probability of more of them than compute.max_failures, which ends a stage of several workers.
        best_checkpoint_every: updates between checkpoints that lose least to them and to failures together (Young's formula).
        exchanged: bytes that a host sends to others for gradients.
        fetched, fetched_by_node: bytes that all hosts, and each, read of images.
        kept_by_node: bytes of shards in each host's cache.
        written: bytes of checkpoints.
        reads, writes: requests to the bucket.
    """

    name: str
    workers: int
    nodes: int
    seconds: float
    parts: dict[str, float]
    limit: str
    efficiency: float
    useful_seconds: float
    update_seconds: float
    failures: float
    given_up: float
    best_checkpoint_every: int | None
    exchanged: float
    fetched: float
    fetched_by_node: float
    kept_by_node: float
    written: float
    reads: int
    writes: int


def simulate_stage(demand: Demand, cluster: Cluster, paces: Paces = NOTHING, max_failures: int = 0) -> StageEstimate:
    """Simulate one stage run, whose number of views is known, on all workers of a cluster or those that it uses.

    Raises:
        SettingsError: it uses more workers than there are, a cache is too small, or failures undo more than is done.
    """
    team = _team(demand, cluster, paces)
    fetching, updates = fetching_of(team), _updates(demand, team.workers)
    first, later = update_time(team, fetching.first), update_time(team, fetching.later)
    checkpoints = 0 if demand.checkpoint_every is None else math.ceil(updates / demand.checkpoint_every)
    stall = demand.state_bytes / (cluster.checkpoint_bandwidth * 1e9) + cluster.checkpoint_latency
    parts = _parts(updates, fetching, first, later) | {"checkpoints": checkpoints * stall, "start": cluster.start_seconds}
    parts["failures"] = _lost(team, sum(parts.values()), later.seconds)
    seconds = sum(parts.values())
    failures, useful = _failure_rate(team) * seconds, _useful_seconds(team, updates)
    fetched = fetching.in_all(updates)
    return StageEstimate(
        name=demand.name,
        workers=team.workers,
        nodes=team.nodes,
        seconds=seconds,
        parts=parts,
        limit=_limit(parts, later if updates > 2 * fetching.first_updates else first),
        efficiency=useful / (team.workers * seconds) if seconds else 1.0,
        useful_seconds=useful,
        update_seconds=later.seconds,
        failures=failures,
        given_up=more_than(max_failures, failures) if team.together else 0.0,
        best_checkpoint_every=_best_interval(team, stall, later.seconds, updates),
        exchanged=updates * bytes_between_nodes(demand.gradient_bytes, team.workers, cluster),
        fetched=fetched * team.nodes,
        fetched_by_node=fetched,
        kept_by_node=fetching.kept,
        written=float(checkpoints * demand.state_bytes),
        reads=fetching.requests(fetched * team.nodes),
        writes=checkpoints * math.ceil(demand.state_bytes / PART_BYTES),
    )


def _team(demand: Demand, cluster: Cluster, paces: Paces) -> Team:
    """The workers of a stage run. In evaluation each looks at whole images, one after the other."""
    workers, work = demand.workers or cluster.workers, demand.work
    if workers > cluster.workers:
        raise SettingsError(f"{demand.section}.workers: {workers} workers, but the cluster has {cluster.workers}; set fewer")
    pace, views = paces.of(demand.name), float(work.views or 0)
    if work.updates is None:
        return Team(demand, cluster, workers, pace, views / max(1, work.images or 0), 1.0)
    return Team(demand, cluster, workers, pace, work.batch_size / workers, work.batch_size / workers)


def _updates(demand: Demand, workers: int) -> int:
    updates = demand.work.updates
    return math.ceil((demand.work.images or 0) / workers) if updates is None else updates


def _parts(updates: int, fetching: Fetching, first: UpdateTime, later: UpdateTime) -> dict[str, float]:
    """Seconds of all updates, by what they go to."""
    early = min(updates, fetching.first_updates)
    late = updates - early
    return {
        "compute": updates * later.compute,
        "input": early * first.waiting_for_input + late * later.waiting_for_input,
        "storage": early * first.waiting_for_storage + late * later.waiting_for_storage,
        "stragglers": updates * later.straggling,
        "all-reduce": updates * later.exchange,
    }


def _useful_seconds(team: Team, updates: int) -> float:
    """What the arithmetic would take one worker that waits for nothing."""
    once = 0.0 if team.pace is None or team.demand.work.updates is None else updates * team.pace.update_seconds
    return once + team.arithmetic_seconds(float(team.demand.work.views or 0))


def _failure_rate(team: Team) -> float:
    """Failures a second, of any of the hosts."""
    hours = team.cluster.node_mtbf_hours
    return 0.0 if hours is None else team.nodes / (hours * 3600)


def _lost(team: Team, undisturbed: float, update: float) -> float:
    """Expected seconds lost: a failure costs half of what lies between checkpoints, and the start of new workers."""
    every, rate = team.demand.checkpoint_every, _failure_rate(team)
    interval = undisturbed if every is None else min(undisturbed, every * update)
    loss = interval / 2 + team.cluster.start_seconds
    if rate * loss >= 1:
        raise SettingsError(
            f"{team.demand.section}.checkpoint_every: {team.demand.name} would never end: a failure every {1 / rate:,.0f} s "
            f"costs {loss:,.0f} s; set it lower"
        )
    return undisturbed * rate * loss / (1 - rate * loss)


def _best_interval(team: Team, stall: float, update: float, updates: int) -> int | None:
    rate = _failure_rate(team)
    if team.demand.checkpoint_every is None or not rate or not update:
        return None
    return min(updates, max(1, round(math.sqrt(2 * stall / rate) / update)))


def _limit(parts: dict[str, float], typical: UpdateTime) -> str:
    """The slowest of what runs side by side, unless what is waited for beside it takes longer still."""
    pipeline = parts["compute"] + parts["input"] + parts["storage"]
    waited = {name: parts[name] for name in ("stragglers", "all-reduce", "checkpoints", "start", "failures")}
    seconds = {typical.limit: pipeline, **waited}
    return max(seconds, key=lambda name: seconds[name])
