"""Exchanges against values by hand."""

from __future__ import annotations

import pytest

from gkd_core.planning.collectives import (
    BUCKET_BYTES,
    all_reduce_seconds,
    bucket_count,
    bytes_between_nodes,
    exposed_seconds,
    ring_seconds,
    tree_seconds,
)
from tests.planning.clusters import cluster


def test_a_ring_sends_almost_twice_the_bytes_whatever_its_size() -> None:
    # 1 GB among 4 at 1 GB/s: six steps of 0.25 GB, and six latencies.
    assert ring_seconds(1e9, 4, bandwidth=1, latency=0.01) == pytest.approx(6 * 0.25 + 6 * 0.01)
    assert ring_seconds(1e9, 1, bandwidth=1, latency=0.01) == 0
    assert ring_seconds(1e9, 1024, bandwidth=1, latency=0) == pytest.approx(2 * 1023 / 1024)


def test_a_tree_has_few_steps_and_hosts_take_what_is_faster() -> None:
    assert tree_seconds(1e9, 1024, bandwidth=1, latency=0.01) == pytest.approx(2 * (1 + 10 * 0.01))
    assert tree_seconds(1e9, 1, bandwidth=1, latency=0.01) == 0

    def between(latency: float) -> float:
        return all_reduce_seconds(20e6, 128, cluster(nodes=128, gpus_per_node=1, inter_bandwidth=1, inter_latency=latency))

    assert between(1e-6) == pytest.approx(254 * (20e6 / 128 / 1e9 + 1e-6))  # a ring: 39.9 ms, a tree 40.01
    assert between(1e-4) == pytest.approx(2 * (20e6 / 1e9 + 7 * 1e-4))  # a tree: 41.4 ms, a ring 65


def test_hosts_sum_inside_and_then_between_each_other() -> None:
    size = 20e6  # one bucket
    hosts = cluster(nodes=2, gpus_per_node=4, intra_bandwidth=10, intra_latency=1e-3, inter_bandwidth=1, inter_latency=1e-2)
    inside = 2 * 3 / 4 * size / 10e9 + 6 * 1e-3
    between = 2 * 1 / 2 * size / 1e9 + 2 * 1e-2
    assert all_reduce_seconds(size, 8, hosts) == pytest.approx(inside + between)
    assert all_reduce_seconds(size, 4, hosts) == pytest.approx(inside)
    assert bytes_between_nodes(size, 8, hosts) == size
    assert bytes_between_nodes(size, 4, hosts) == 0


def test_every_bucket_pays_the_latency() -> None:
    hosts = cluster(gpus_per_node=2, intra_latency=0.1)
    assert bucket_count(3.5 * BUCKET_BYTES) == 4
    assert all_reduce_seconds(3.5 * BUCKET_BYTES, 2, hosts) == pytest.approx(4 * 2 * 0.1, rel=1e-3)


def test_the_backward_pass_hides_all_but_the_last_bucket() -> None:
    hosts = cluster(gpus_per_node=2, intra_latency=0.1, overlap=0.5)
    size = 4 * BUCKET_BYTES  # 0.8 s
    assert exposed_seconds(size, 2, hosts, backward=0.0) == pytest.approx(0.8, rel=1e-3)
    assert exposed_seconds(size, 2, hosts, backward=0.6) == pytest.approx(0.5, rel=1e-3)
    assert exposed_seconds(size, 2, hosts, backward=60) == pytest.approx(0.2, rel=1e-3)
