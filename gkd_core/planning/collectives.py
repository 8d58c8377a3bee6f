"""How long workers take to sum their gradients, and how many bytes that sends."""

from __future__ import annotations

import math

from gkd_core.planning.cluster import Cluster

BUCKET_BYTES = 25 * 1024**2  # of torch's DistributedDataParallel: gradients are exchanged in buckets of this size


def ring_seconds(size: float, members: int, bandwidth: float, latency: float) -> float:
    """Seconds of a ring all-reduce: 2(n-1) steps, each of 1/n of the bytes.

    Args:
        size: bytes that each member has.
        bandwidth: of a member to the next, in 10^9 bytes a second.
        latency: seconds of a step.
    """
    steps = 2 * (members - 1)
    return steps * (size / members / (bandwidth * 1e9) + latency)


def tree_seconds(size: float, members: int, bandwidth: float, latency: float) -> float:
    """Seconds of an all-reduce by trees (arguments as for a ring): all of the bytes up and down, but few steps."""
    if members == 1:
        return 0.0
    return 2 * (size / (bandwidth * 1e9) + math.ceil(math.log2(members)) * latency)


def bucket_count(size: float) -> int:
    """Buckets that gradients of so many bytes are exchanged in."""
    return max(1, math.ceil(size / BUCKET_BYTES))


def all_reduce_seconds(size: float, workers: int, cluster: Cluster) -> float:
    """Seconds until all workers have the sum of gradients of so many bytes each: on each host, and between the hosts.

    Hosts scatter their sum over their GPUs, each GPU exchanges its part with its likes on the other hosts, all of them sharing
    the host's network, and the result is gathered on each host. Between hosts the faster of ring and tree counts, as NCCL
    chooses by size. Every bucket pays the latencies.
    """
    nodes, local = cluster.nodes_of(workers), min(workers, cluster.gpus_per_node)
    buckets = bucket_count(size)
    inside = ring_seconds(size / buckets, local, cluster.intra_bandwidth, cluster.intra_latency)
    ways = (ring_seconds, tree_seconds)
    between = min(way(size / buckets, nodes, cluster.inter_bandwidth, cluster.inter_latency) for way in ways)
    return buckets * (inside + between)


def exposed_seconds(size: float, workers: int, cluster: Cluster, backward: float) -> float:
    """What of an exchange training waits for, where it runs beside a backward pass of so many seconds.

    The last bucket is full only when the pass has ended, so that it is always waited for.
    """
    whole = all_reduce_seconds(size, workers, cluster)
    return max(whole / bucket_count(size), whole - cluster.overlap * backward)


def bytes_between_nodes(size: float, workers: int, cluster: Cluster) -> float:
    """Bytes that a host sends to others for one exchange."""
    nodes = cluster.nodes_of(workers)
    return 2 * (nodes - 1) / nodes * size
