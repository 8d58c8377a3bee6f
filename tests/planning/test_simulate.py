"""One stage on a cluster: each limit by hand, and what must hold whatever the numbers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gkd_core.errors import SettingsError
from gkd_core.planning.chance import expected_maximum, lru_hits
from gkd_core.planning.paces import Pace, Paces
from gkd_core.planning.simulate import simulate_stage
from tests.planning.clusters import CLUSTER, DEMAND, WORK, cluster, stage


def test_where_nothing_else_takes_time_workers_share_the_arithmetic() -> None:
    # 6400 views of 0.1 s.
    one = simulate_stage(DEMAND, cluster(gpus_per_node=1))
    four = simulate_stage(DEMAND, CLUSTER)
    eight = simulate_stage(DEMAND, cluster(nodes=2))
    assert [round(each.seconds, 3) for each in (one, four, eight)] == [640, 160, 80]
    assert [round(each.efficiency, 5) for each in (one, four, eight)] == [1, 1, 1]
    assert one.limit == four.limit == "compute"
    assert sum(four.parts.values()) == four.seconds


def test_bound_by_launches() -> None:
    # 16 images a worker take 1.6 s, 8 take 0.8; launching takes 1.
    bound = simulate_stage(DEMAND, cluster(nodes=2, update_floor=1.0))
    assert bound.seconds == pytest.approx(100 * 1.0)
    assert bound.limit == "launches"
    assert bound.efficiency == pytest.approx(0.8)
    assert simulate_stage(DEMAND, cluster(update_floor=1.0)).limit == "compute"


def test_bound_by_input() -> None:
    # 64 images an update on the host, each 0.2 MP of JPEG at 1 MP/s and 0.05 MP of crop at 0.1: 0.7 s of a core, on 8 cores.
    slow = cluster(jpeg_megapixels=1, released_megapixels=0.1)
    bound = simulate_stage(DEMAND, slow)
    assert bound.update_seconds == pytest.approx(64 * 0.7 / 8)
    assert (bound.limit, round(bound.parts["input"], 6)) == ("input", round(100 * (5.6 - 1.6), 6))
    # Two loaders a worker are as many as the cores; one is half; without any, the worker makes its 16 images itself.
    assert simulate_stage(stage(loaders=2), slow).seconds == pytest.approx(bound.seconds)
    assert simulate_stage(stage(loaders=1), slow).update_seconds == pytest.approx(11.2)
    assert simulate_stage(stage(loaders=0), slow).update_seconds == pytest.approx(16 * 0.7 + 1.6)
    assert simulate_stage(DEMAND, slow.model_copy(update={"cores_per_node": 64})).update_seconds == pytest.approx(64 * 0.7 / 16)
    # Another image and another augmentation count at their own rates.
    other = stage(image=DEMAND.image._replace(jpeg_pixels=0, png_pixels=200_000), augment="light")
    assert simulate_stage(other, slow).limit == "compute"


def test_bound_by_storage() -> None:
    # Each host reads 64 images of 100 kB an update at 1 MB/s; two hosts, 32 each, or both together at 0.5 MB/s.
    slow = cluster(storage_node_bandwidth=0.001)
    assert simulate_stage(DEMAND, slow).update_seconds == pytest.approx(6.4)
    assert simulate_stage(DEMAND, slow).limit == "storage"
    assert simulate_stage(DEMAND, cluster(nodes=2, storage_node_bandwidth=0.001)).update_seconds == pytest.approx(3.2)
    assert simulate_stage(DEMAND, cluster(nodes=2, storage_bandwidth=0.0005)).update_seconds == pytest.approx(12.8)
    assert simulate_stage(DEMAND, slow).fetched == 6400 * 100_000


def test_bound_by_the_network() -> None:
    # 40 MB between two hosts at 0.01 GB/s: 4 s beside 0.8 s of arithmetic, of which 0.2 s are the backward pass.
    slow = {"nodes": 2, "inter_bandwidth": 0.01}
    bound = simulate_stage(DEMAND, cluster(**slow))
    assert bound.update_seconds == pytest.approx(4.8)
    assert (bound.limit, bound.exchanged) == ("all-reduce", 100 * 40_000_000)
    hidden = simulate_stage(DEMAND, cluster(**slow, overlap=1))
    assert hidden.update_seconds == pytest.approx(4.6)
    assert simulate_stage(stage(accumulate=2), cluster(**slow, overlap=1)).update_seconds == pytest.approx(4.7)


def test_bound_by_checkpoints() -> None:
    # 160 MB at 0.04 GB/s and a second beside: 5 s each; ten of them at every 10 updates, and one at the end of every 30.
    slow = cluster(checkpoint_bandwidth=0.04, checkpoint_latency=1)
    often = simulate_stage(stage(checkpoint_every=1), slow)
    assert often.seconds == pytest.approx(160 + 100 * 5)
    assert (often.limit, often.written) == ("checkpoints", 100 * 160_000_000)
    assert simulate_stage(stage(checkpoint_every=30), slow).parts["checkpoints"] == pytest.approx(4 * 5)
    assert simulate_stage(stage(checkpoint_every=30), slow).limit == "compute"
    assert often.writes == 100 * 10  # parts of 16 MiB


def test_the_slowest_worker_is_waited_for() -> None:
    late = simulate_stage(DEMAND, cluster(straggling=0.1))
    assert late.parts["stragglers"] == pytest.approx(160 * 0.1 * expected_maximum(4))
    assert simulate_stage(DEMAND, cluster(gpus_per_node=1, straggling=0.1)).parts["stragglers"] == 0


def test_workers_of_a_host_can_slow_each_other() -> None:
    assert simulate_stage(DEMAND, cluster(contention=1.5)).seconds == pytest.approx(240)
    assert simulate_stage(DEMAND, cluster(gpus_per_node=1, contention=1.5)).seconds == pytest.approx(640)


def test_failures_cost_half_an_interval_and_a_start() -> None:
    # A host fails every 1000 s, two hosts every 500: each loses 5 updates of 0.8 s and 10 s.
    failing = cluster(nodes=2, node_mtbf_hours=1000 / 3600, start_seconds=10)
    run = simulate_stage(stage(checkpoint_every=10), failing, max_failures=2)
    lost = (5 * 0.8 + 10) / 500
    assert run.seconds == pytest.approx((80 + 10) / (1 - lost))
    assert run.failures == pytest.approx(run.seconds / 500)
    expected = run.failures
    assert run.given_up == pytest.approx(1 - math.exp(-expected) * (1 + expected + expected**2 / 2))
    with pytest.raises(
        SettingsError, match=r"distill_proxy.checkpoint_every: distill-proxy would never end: a failure every 5 s"
    ):
        simulate_stage(stage(checkpoint_every=10), cluster(nodes=2, node_mtbf_hours=10 / 3600, start_seconds=10))


def test_the_best_interval_is_where_the_losses_are_least() -> None:
    failing = cluster(node_mtbf_hours=2, checkpoint_latency=1)
    long = dataclasses.replace(WORK, updates=100_000, views=6_400_000)

    def seconds(every: int) -> float:
        return simulate_stage(stage(work=long, checkpoint_every=every), failing).seconds

    best = simulate_stage(stage(work=long, checkpoint_every=1000), failing).best_checkpoint_every
    assert best is not None
    assert best == pytest.approx(math.sqrt(2 * 7200) / 1.6, abs=1)
    assert seconds(best) < min(seconds(best // 2), seconds(2 * best), seconds(1000))


def test_shards_are_fetched_once_where_the_cache_holds_them() -> None:
    # 3200 images of 100 kB, two passes; four hosts with lanes read 80 MB each.
    hosts = {"nodes": 4, "storage_node_bandwidth": 0.001}
    room = simulate_stage(stage(bucket_cache=10**9, lanes=16), cluster(**hosts))
    assert (room.fetched, room.fetched_by_node, room.kept_by_node) == pytest.approx((320e6, 80e6, 80e6))
    assert room.reads == 3  # shards of 128 MB
    # The first pass, of 50 updates, waits for 1.6 MB an update each; the second for the arithmetic.
    assert room.seconds == pytest.approx(50 * 1.6 + 50 * 0.4)
    less = simulate_stage(stage(bucket_cache=40 * 10**6, lanes=16), cluster(**hosts))
    assert less.fetched_by_node == pytest.approx(80e6 * (2 - lru_hits(0.5)))
    # Without lanes every host needs all of them.
    assert simulate_stage(stage(bucket_cache=10**9), cluster(**hosts)).fetched == pytest.approx(4 * 320e6)
    with pytest.raises(
        SettingsError, match=r"compute.shard_cache_bytes: 0 GB, but distill-proxy has 0 GB .*data.streaming.lanes"
    ):
        simulate_stage(stage(bucket_cache=10**8), cluster(**hosts))


def test_repeated_views_are_read_once() -> None:
    run = simulate_stage(stage(bucket_cache=10**9, lanes=16, repeats=3), cluster(storage_node_bandwidth=0.001))
    assert run.fetched == pytest.approx(320e6 * 100 / 150)  # 100 updates of the 150 that a pass takes


def test_a_measured_pace_takes_the_place_of_flops() -> None:
    paces = Paces({"distill-proxy": Pace(images_per_second=20, update_seconds=0.5)})
    run = simulate_stage(DEMAND, CLUSTER, paces)
    assert run.update_seconds == pytest.approx(0.5 + 16 / 20)
    assert run.efficiency == pytest.approx((0.5 + 64 / 20) / (4 * 1.3))
    assert simulate_stage(DEMAND, CLUSTER, Paces({"learn-task": Pace(images_per_second=1)})).update_seconds == pytest.approx(1.6)


def test_precision_has_its_own_peak() -> None:
    slow = cluster(fp32_tflops=0.1)
    assert simulate_stage(stage(precision="fp32"), slow).seconds == pytest.approx(1600)
    assert simulate_stage(DEMAND, slow).seconds == pytest.approx(160)


def test_stages_of_fewer_workers_use_no_more() -> None:
    assert simulate_stage(stage(workers=1), CLUSTER).seconds == pytest.approx(640)
    windows = dataclasses.replace(WORK, name="evaluate-gta5", images=10, updates=None, views=60, batch_size=1)
    looking = stage(work=windows, workers=4, section="evaluate", gradient_bytes=0, state_bytes=0)
    assert simulate_stage(looking, CLUSTER).seconds == pytest.approx(3 * 0.6)  # ten images among four
    with pytest.raises(SettingsError, match=r"evaluate.workers: 8 workers, but the cluster has 4; set fewer"):
        simulate_stage(dataclasses.replace(looking, workers=8), CLUSTER)


RATES = ("intra_bandwidth", "inter_bandwidth", "jpeg_megapixels", "released_megapixels", "storage_node_bandwidth")
RATES += ("storage_bandwidth", "checkpoint_bandwidth", "peak_tflops", "cores_per_node")
NUMBERS = st.fixed_dictionaries(
    {
        "nodes": st.sampled_from([1, 2, 4, 8]),
        "gpus_per_node": st.sampled_from([1, 2, 8]),
        "peak_tflops": st.floats(0.1, 1000),
        "fp32_tflops": st.none(),
        "update_floor": st.floats(0, 1),
        "contention": st.floats(1, 2),
        "straggling": st.floats(0, 0.5),
        "overlap": st.floats(0, 1),
        "intra_bandwidth": st.floats(0.001, 100),
        "inter_bandwidth": st.floats(0.001, 100),
        "intra_latency": st.floats(0, 0.01),
        "inter_latency": st.floats(0, 0.01),
        "cores_per_node": st.integers(1, 128),
        "jpeg_megapixels": st.floats(0.1, 200),
        "released_megapixels": st.floats(0.1, 200),
        "storage_node_bandwidth": st.floats(0.0001, 10),
        "storage_bandwidth": st.floats(0.0001, 10),
        "checkpoint_bandwidth": st.floats(0.001, 10),
        "start_seconds": st.floats(0, 100),
        "node_mtbf_hours": st.floats(5000, 50_000),
    }
)
STAGES = st.fixed_dictionaries(
    {
        "loaders": st.integers(0, 16),
        "accumulate": st.sampled_from([1, 2]),
        "checkpoint_every": st.sampled_from([None, 1, 30]),
        "lanes": st.sampled_from([None, 64]),
        "repeats": st.sampled_from([1, 3]),
        "bucket_cache": st.sampled_from([None, 320_000_000]),
    }
)


@examples(max_examples=60)
@given(numbers=NUMBERS, changes=STAGES, key=st.sampled_from(RATES), factor=st.integers(2, 100))
def test_more_of_anything_is_never_slower_and_no_worker_does_more_than_it_can(
    numbers: dict[str, Any], changes: dict[str, Any], key: str, factor: int
) -> None:
    asked = stage(**changes)
    before = simulate_stage(asked, cluster(**numbers))
    after = simulate_stage(asked, cluster(**numbers | {key: numbers[key] * factor}))
    assert after.seconds <= before.seconds * (1 + 1e-9)
    assert 0 < before.efficiency <= 1 + 1e-9
    assert before.seconds == pytest.approx(sum(before.parts.values()))
    assert min(before.parts.values()) >= -1e-9
