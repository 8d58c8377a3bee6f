"""What hosts fetch from storage: every image for each view, or shards through a cache."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gkd_core.errors import SettingsError
from gkd_core.planning.chance import lru_hits
from gkd_core.planning.update_time import Team

SHARD_BYTES = 128e6  # gkd data prepare --shard-size


@dataclass(frozen=True)
class Fetching:
    """Bytes that each host fetches for an update.

    Attributes:
        first: in the first pass over the images, which has `first_updates` updates.
        later: in the passes after it.
        kept: bytes of shards in each host's cache.
        in_bucket: whether they are shards by S3, each of which is a request.
    """

    first: float
    first_updates: int
    later: float
    kept: float
    in_bucket: bool

    def in_all(self, updates: int) -> float:
        """Bytes that a host fetches in so many updates."""
        early = min(updates, self.first_updates)
        return early * self.first + (updates - early) * self.later

    def requests(self, fetched: float) -> int:
        """GET requests for so many bytes."""
        return math.ceil(fetched / SHARD_BYTES) if self.in_bucket else 0


def fetching_of(team: Team) -> Fetching:
    """What the hosts of a stage run fetch.

    With lanes a host reads only its own workers' shards; without, any image may be next, so that it needs all of them.

    Raises:
        SettingsError: all are needed, and the cache has no room for them.
    """
    demand = team.demand
    if demand.bucket_cache is None:
        each_time = team.images * team.local * demand.image.bytes
        return Fetching(each_time, 0, each_time, 0.0, in_bucket=False)
    needed = demand.data_bytes / (1 if demand.lanes is None else team.nodes)
    if demand.lanes is None and needed > demand.bucket_cache:
        raise SettingsError(
            f"compute.shard_cache_bytes: {demand.bucket_cache / 1e9:,.0f} GB, but {demand.name} has {needed / 1e9:,.0f} GB of "
            "shards, and without data.streaming any image may be next; set data.streaming.lanes, or make room"
        )
    updates = max(1, math.ceil((demand.work.images or 0) * demand.repeats / (team.images * team.workers)))
    hits = lru_hits(demand.bucket_cache / needed) if needed else 1.0
    return Fetching(needed / updates, updates, needed / updates * (1 - hits), min(needed, demand.bucket_cache), in_bucket=True)
