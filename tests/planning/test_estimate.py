"""A whole run on a cluster: waves, costs, sums, and who can share a batch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from gkd_core.data.catalog.load import load_catalog
from gkd_core.errors import SettingsError
from gkd_core.planning.demand import demands
from gkd_core.planning.estimate import check_workers, estimate_run, possible_nodes
from gkd_core.planning.paces import Paces, read_paces
from gkd_core.planning.work import Machine, plan_work
from gkd_core.settings import settings_from_tree
from gkd_core.stages import Recipe
from tests.planning.clusters import CLUSTER, DEMAND, WORK, cluster, stage

CATALOG = load_catalog()


def named(name: str, **changes: Any) -> Any:
    return stage(work=dataclasses.replace(WORK, name=name), **changes)


@pytest.fixture
def paper(tiny_tree: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The tiny models on the paper's data, which are not at hand."""
    return tiny_tree | {
        "data": {"world": None, "root": str(tmp_path / "data"), "proxy": "imagenet/train", "benchmarks": ["G2C"]},
        "compute": tiny_tree["compute"] | {"loaders": 4},
    }


def asked(tree: dict[str, Any], workspace: Path, **options: Any) -> dict[str, Any]:
    settings = settings_from_tree(tree)
    works = plan_work(Recipe(settings, CATALOG), workspace, options.pop("proxy_images", None))
    return {each.name: each for each in demands(Recipe(settings, CATALOG), workspace, works, **options)}


def test_one_worker_that_waits_for_nothing_takes_what_the_plan_says(paper: dict[str, Any], tmp_path: Path) -> None:
    works = plan_work(Recipe(settings_from_tree(paper), CATALOG), tmp_path)
    every = list(asked(paper, tmp_path).values())
    one = cluster(gpus_per_node=1, peak_tflops=0.001, mfu=0.5)
    run = estimate_run(every, [[each.name] for each in every], one)
    assert run.gpu_hours == pytest.approx(sum(Machine(0.001, 0.5).hours(work.flops or 0) for work in works))
    assert run.efficiency == pytest.approx(1)


def test_stages_ask_for_what_their_settings_say(paper: dict[str, Any], tmp_path: Path) -> None:
    every = asked(paper | {"evaluate": paper["evaluate"] | {"workers": 3}}, tmp_path)
    proxy, source, task, looking = every.values()
    student = proxy.work.costs["student"].parameters + proxy.work.costs["heads"].parameters
    assert (proxy.gradient_bytes, proxy.state_bytes) == (4 * student, 4 * 3 * student)
    assert (proxy.workers, task.workers, looking.workers) == (None, 1, 3)
    # ImageNet's size is not in the catalog: 500 × 375 and 0.6 bytes a pixel; GTA5's is, and its files are PNGs.
    assert proxy.image == pytest.approx((0.6 * 375 * 500, 375 * 500, 0))
    assert source.image == pytest.approx((1.15 * 1052 * 1914, 0, 1052 * 1914))
    assert source.references == task.references == ("gta5/train",)
    assert looking.image.png_pixels == pytest.approx((6382 * 1052 * 1914 + 500 * 1024 * 2048) / 6882)
    decoder, encoder = task.work.costs["decoder"].parameters, task.work.costs["student"].parameters
    assert task.state_bytes == 4 * (encoder + decoder + 2 * decoder)  # the encoder is frozen
    averaged = paper | {"distill_proxy": paper["distill_proxy"] | {"ema_decay": 0.99}}
    assert asked(averaged, tmp_path)["distill-proxy"].state_bytes == 4 * 4 * student


@pytest.mark.parametrize(
    ("method", "encoder", "moments"), [("teacher", "teacher", 0), ("no-kd", "student", 2), ("single-stage-mse", "student", 2)]
)
def test_what_stage_two_trains_has_moments(
    paper: dict[str, Any], tmp_path: Path, method: str, encoder: str, moments: int
) -> None:
    task = asked(paper | {"method": method}, tmp_path)["learn-task-gta5"]
    costs = task.work.costs
    assert task.state_bytes == 4 * ((1 + moments) * costs[encoder].parameters + 3 * costs["decoder"].parameters)
    assert 0 < task.backward_share < 2 / 3 + 1e-9


def test_a_larger_proxy_needs_no_data_at_hand(paper: dict[str, Any], tmp_path: Path) -> None:
    long = paper | {"distill_proxy": paper["distill_proxy"] | {"updates": None, "epochs": 2}}
    proxy = asked(long, tmp_path, proxy_images=14_200_000, proxy_bytes=92e3)["distill-proxy"]
    assert (proxy.work.images, proxy.work.updates) == (14_200_000, 2 * 14_200_000 // 4)
    assert proxy.data_bytes == pytest.approx(14_200_000 * 92e3)


def test_waves_run_one_after_the_other_and_their_stages_share_a_gpu() -> None:
    every = [named(name, workers=1) for name in ("distill-proxy", "learn-task-a", "learn-task-b")]
    waves = [["distill-proxy"], ["learn-task-a", "learn-task-b"], ["report"]]
    assert estimate_run(every, waves, CLUSTER).seconds == pytest.approx(3 * 640)
    on_cores = estimate_run(every, waves, cluster(device="cpu"))
    assert on_cores.seconds == pytest.approx(2 * 640)
    assert on_cores.waves == (("distill-proxy",), ("learn-task-a", "learn-task-b"))
    assert on_cores.gpu_hours == pytest.approx(4 * 2 * 640 / 3600)
    assert on_cores.efficiency == pytest.approx(3 / 8)


def test_costs_are_linear_in_their_prices() -> None:
    prices = ("price_gpu_hour", "price_gb_month", "price_thousand_reads", "price_thousand_writes")
    asking = named("distill-proxy", bucket_cache=10**9, checkpoint_every=10)

    def costs(**changes: float) -> dict[str, float]:
        return estimate_run([asking], [["distill-proxy"]], cluster(**changes)).costs

    single = [costs(**{price: 2.5}) for price in prices]
    assert [costs(**{price: 5})["all"] for price in prices] == pytest.approx([2 * cost["all"] for cost in single])
    together = costs(**dict.fromkeys(prices, 2.5))
    assert together["all"] == pytest.approx(sum(cost["all"] for cost in single))
    assert together["gpus"] == pytest.approx(4 * 160 / 3600 * 2.5)
    assert together["requests"] == pytest.approx(2.5 * (3 + 10 * 10) / 1000)
    assert costs()["all"] == 0


def test_images_that_two_stages_read_lie_there_once() -> None:
    every = [named("distill-source-a"), named("learn-task-a", workers=1), named("evaluate-a", workers=1, references=("x/val",))]
    run = estimate_run(every, [[each.name] for each in every], cluster(price_gb_month=1))
    assert run.dataset_bytes == 2 * 3200 * 100_000
    assert run.checkpoint_bytes == 2 * 3 * 160_000_000
    assert run.storage_month == pytest.approx((0.64e9 + 0.96e9) / 1e9)


def test_what_nobody_knows_is_in_no_sum() -> None:
    unknown = stage(work=dataclasses.replace(WORK, name="distill-source-x", images=None, updates=None, views=None))
    run = estimate_run([DEMAND, unknown], [["distill-proxy"], ["distill-source-x"]], CLUSTER)
    assert (run.unknown, run.seconds) == (("distill-source-x",), pytest.approx(160))


def test_workers_that_cannot_share_a_batch_are_told_how_many_could() -> None:
    assert possible_nodes(DEMAND, CLUSTER) == [1, 2, 4, 8, 16]
    assert possible_nodes(stage(accumulate=2), CLUSTER) == [1, 2, 4, 8]
    assert possible_nodes(stage(lanes=16), CLUSTER) == [1, 2, 4]
    message = r"--nodes 3: distill-proxy: batches of 64 images do not divide among 12 workers; nearest possible --nodes: "
    with pytest.raises(
        SettingsError, match=message + r"2 \(8 workers\) or 4 \(16 workers\); or choose .*distill_proxy.batch_size"
    ):
        check_workers([DEMAND], cluster(nodes=3))
    with pytest.raises(SettingsError, match=r"64 images in 2 parts .* 64 workers; nearest possible --nodes: 8 \(32 workers\)"):
        check_workers([stage(accumulate=2)], cluster(nodes=16))
    with pytest.raises(SettingsError, match="nearest possible --nodes: none"):
        check_workers([DEMAND], cluster(gpus_per_node=7))
    with pytest.raises(SettingsError, match=r"64 images and 16 lanes \(data.streaming\) do not divide among 32 workers"):
        check_workers([stage(lanes=16)], cluster(nodes=8))
    check_workers([stage(workers=1)], cluster(nodes=3))


def test_reach_is_how_far_more_hosts_help() -> None:
    (free,) = estimate_run([DEMAND], [["distill-proxy"]], CLUSTER).reach
    assert (free.most, free.fastest) == (64, 64)
    (bound,) = estimate_run([DEMAND], [["distill-proxy"]], cluster(inter_latency=0.04)).reach
    # Trees of 8 hosts take 6 steps in each of two buckets, 0.48 s beside 0.2; 4 hosts 0.32 + 0.4, and 16 hosts 0.64 + 0.1.
    assert (bound.most, bound.fastest) == (64, 32)


def test_measured_paces_are_read_and_unknown_stages_refused(tmp_path: Path) -> None:
    file, runs = tmp_path / "measured.json", ["distill-proxy", "distill-source-gta5"]
    file.write_text(json.dumps({"distill-source": {"images_per_second": 5}, "distill-source-gta5": {"images_per_second": 7}}))
    paces = read_paces(file, runs)
    assert paces.of("distill-proxy") is None
    assert [pace and pace.images_per_second for pace in map(paces.of, ("distill-source-gta5", "distill-source-x"))] == [7, 5]
    for content, message in (
        ('{"distil": {"images_per_second": 5}}', r"distil: no such stage here; there is: distill-proxy, distill-source"),
        ('{"distill-proxy": {"images": 5}}', r"distill-proxy.images_per_second: field required"),
        ("[]", "input should be "),
    ):
        file.write_text(content)
        with pytest.raises(SettingsError, match=message):
            read_paces(file, runs)
    with pytest.raises(SettingsError, match="no such file"):
        read_paces(tmp_path / "none.json", runs)
    assert Paces({}).of("distill-proxy") is None
