"""Stage one handed to a Ray cluster by its Jobs API, with a token and a bucket as all that both sides share."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gkd_core.records import sha256_of
from tests.infra.policy_language import IF_NONE_MATCH, Request, is_allowed
from tests.integration.ray_hosts import RayHosts, ray_hosts
from tests.s3_store import s3_bucket

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
SECRET = "canary-" + secrets.token_hex(8)
OUTPUT = Path("artifacts/distill-proxy")
PROBE = "$extremelyunlikelytoexist$"  # a bucket that Arrow asks for, to learn the store's way to answer; a refusal will do
POLICIES = Path(__file__).parents[2] / "infra" / "policies"


@pytest.fixture(scope="module")
def asked() -> list[tuple[str, Request]]:
    """What the store was asked for, with the access key by which it was."""
    return []


@pytest.fixture(scope="module")
def store(asked: list[tuple[str, Request]]) -> Iterator[dict[str, str]]:
    """The environment in which every AWS client speaks to a server on loopback that has the bucket `gkd-data`."""
    with s3_bucket("gkd-data", SECRET, lambda key, request: asked.append((key, request))) as environment:
        yield environment


@pytest.fixture(scope="module")
def cluster(store: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHosts]:
    """A Ray head that asks for a token, and takes the work itself."""
    with ray_hosts(tmp_path_factory.mktemp("ray"), {**store, "AWS_ACCESS_KEY_ID": "trainer"}, head_cpus=4) as hosts:
        yield hosts


def test_a_job_without_the_token_is_refused(cluster: RayHosts) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        cluster.ask("/api/jobs/", None)
    assert refused.value.code == 401


def test_the_result_is_that_of_this_machine(
    cluster: RayHosts, asked: list[tuple[str, Request]], tiny_tree: dict[str, Any], tmp_path: Path
) -> None:
    here = _project(tmp_path / "here", tiny_tree, {"workers": 1})
    there = _project(tmp_path / "there", tiny_tree, _elsewhere(cluster))
    for folder in (here, there):
        assert _gkd(folder, cluster.access, "run", "prepare-data").returncode == 0
    assert _gkd(here, {**cluster.access, "RAY_ADDRESS": cluster.gcs}, "run", "distill-proxy").returncode == 0
    done = _gkd(there, cluster.access, "run", "distill-proxy")
    assert done.returncode == 0, done.stderr
    assert _digests(there / OUTPUT) == _digests(here / OUTPUT)
    (metrics,) = (there / "artifacts/runs").glob("distill-proxy-*/metrics.jsonl")
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == [1, 2, 3]
    assert SECRET not in done.stdout + done.stderr
    _holds_to_its_policy("trainer", [request for key, request in asked if key == "trainer"])
    _holds_to_its_policy("worker", [request for key, request in asked if key == "key"][1:])  # the first makes the bucket
    (job,) = [job["submission_id"] for job in _jobs(cluster) if job["status"] == "SUCCEEDED" and job["submission_id"]]
    handed = [request for key, request in asked if request.action == "s3:PutObject" and "/output/" in request.place]
    assert {request.place.partition("/output/")[2].partition("/")[0] for request in handed} == {job}
    assert {request.facts.get(IF_NONE_MATCH) for request in handed} == {"*"}


def test_a_workers_own_error_is_told_here(cluster: RayHosts, tiny_tree: dict[str, Any], tmp_path: Path) -> None:
    tree = tiny_tree | {"distill_proxy": tiny_tree["distill_proxy"] | {"lr": 1e30, "updates": 6, "warmup_updates": 0}}
    project = _project(tmp_path, tree, _elsewhere(cluster))
    _gkd(project, cluster.access, "run", "prepare-data")
    done = _gkd(project, cluster.access, "run", "distill-proxy")
    assert done.returncode == 2, done.stderr
    assert "last good checkpoint" in done.stderr
    assert not (project / OUTPUT).exists()


def test_ending_the_stage_stops_its_job(cluster: RayHosts, tiny_tree: dict[str, Any], tmp_path: Path) -> None:
    tree = tiny_tree | {"distill_proxy": tiny_tree["distill_proxy"] | {"updates": 100_000}}
    project = _project(tmp_path, tree, _elsewhere(cluster))
    _gkd(project, cluster.access, "run", "prepare-data")
    with subprocess.Popen([*GKD, "run", "distill-proxy"], cwd=project, env={**os.environ, **cluster.access}) as stage:
        deadline = time.monotonic() + 180
        while not list((project / "artifacts/runs").glob("distill-proxy-*/metrics.jsonl")):
            assert stage.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        stage.terminate()
        assert stage.wait(60) == 130
    states = {job["status"] for job in _jobs(cluster) if "100000" not in job["entrypoint"]}
    assert "RUNNING" not in states
    assert "STOPPED" in states


GKD = [sys.executable, "-c", "from gkd_core.cli import main; main()"]


def _elsewhere(cluster: RayHosts) -> dict[str, Any]:
    return {"workers": 1, "address": cluster.address, "storage": "s3://gkd-data/scratch"}


def _project(folder: Path, tree: Mapping[str, Any], compute: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    data = tree["data"] | {"benchmarks": ["P2R"]}
    student = {**tree["student"], "weights": "random"}
    teacher = {**tree["teacher"], "weights": "random"}
    whole = {**tree, "data": data, "student": student, "teacher": teacher, "compute": {**tree["compute"], **compute}}
    (folder / "params.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    return folder


def _gkd(folder: Path, environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    whole = {**os.environ, **environment}
    return subprocess.run([*GKD, *arguments], cwd=folder, env=whole, capture_output=True, text=True, timeout=500, check=False)


def _holds_to_its_policy(role: str, requests: list[Request]) -> None:
    """All that was asked is what the role's policy allows, the header of what is written once with it."""
    policy = json.loads((POLICIES / f"{role}.json").read_text())
    assert requests
    assert not [request for request in requests if not is_allowed(policy, request) and request.place != PROBE]


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir()}


def _jobs(cluster: RayHosts) -> list[dict[str, Any]]:
    return list(json.loads(cluster.ask("/api/jobs/", cluster.token)))
