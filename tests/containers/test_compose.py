"""The commands of infra/README.md, from the images to a re-distillation by schedule, and what is killed meanwhile."""

from __future__ import annotations

import json
import re
import shlex
import socket
import sys
import time
import urllib.error
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gkd_core.settings import Settings, dump_settings, settings_from_tree
from gkd_core.system.loopback import free_port
from tests.containers.conftest import BUILD_SECONDS, MARKS
from tests.containers.engine import REPOSITORY, Engine
from tests.containers.host import RUN_SECONDS, Host, readme_commands, wait_for

pytestmark = MARKS

SERVERS = ("postgres", "store", "prefect-server", "mlflow", "ray-head", "ray-worker", "prefect-worker", "metrics")
ENDING = ("bootstrap", "deploy")
BUILD, (SECRETS, VARIABLES, UP, LOGS) = readme_commands("1"), readme_commands("2a")
RUNS = readme_commands("4")
DAYS_AND_NIGHTS = readme_commands("4", 1)
EVERY, UPDATES = 10, 160  # of stage one: updates between checkpoints, and of all
START = timedelta(minutes=10)  # from an image that is built to a platform whose scheduler has looked


@pytest.fixture(scope="module")
def recipe(tiny_tree: dict[str, Any]) -> Settings:
    """A world of a few pixels, one source, stage one on the containers' Ray."""
    long = {"updates": UPDATES, "checkpoint_every": EVERY, "log_every": 1}
    tree = tiny_tree | {
        "data": tiny_tree["data"] | {"benchmarks": ["P2R"]},
        "distill_proxy": tiny_tree["distill_proxy"] | long | {"warm_start": {"updates": 0}},
        "compute": tiny_tree["compute"]
        | {"workers": 2, "address": "http://ray-head:8265", "storage": "s3://gkd-data/scratch", "max_failures": 3},
    }
    return settings_from_tree(tree)


def checkout_of(engine: Engine, folder: Path) -> Path:
    """A clone, with what is changed here and not yet committed."""
    engine.command(["git", "clone", "--quiet", REPOSITORY, folder])
    listed = engine.command(["git", "ls-files", "-z", "--modified", "--others", "--exclude-standard"]).stdout
    for name in filter(None, listed.split("\0")):
        source, target = REPOSITORY / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
            target.chmod(source.stat().st_mode)
        else:
            target.unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="module")
def host(
    engine: Engine,
    build_options: Path,
    stand_ins: dict[str, str],
    recipe: Settings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Host]:
    """As the README says, on free ports and with stand-ins for the images that only a registry has."""
    checkout = checkout_of(engine, tmp_path_factory.mktemp("host") / "gkd")
    ports = {name: free_port() for name in ("PREFECT_PORT", "MLFLOW_PORT", "RAY_DASHBOARD_PORT")}
    variables = {
        "GKD_BUILD_OPTIONS": str(build_options),
        "PATH": f"{Path(sys.executable).parent}:{engine.environment['PATH']}",
        "PREFECT_HOME": str(checkout / ".prefect-home"),
        "COLUMNS": "200",
    }
    made = Host(engine, checkout, ports, variables)
    (checkout / "params.yaml").write_text(dump_settings(recipe), encoding="utf-8")
    made.shell(BUILD[0], BUILD_SECONDS)
    made.shell(SECRETS)
    made.shell(VARIABLES)
    own = {name: str(port) for name, port in ports.items()} | {
        "COMPOSE_PROJECT_NAME": "gkd-test",
        "POSTGRES_IMAGE": stand_ins["postgres"],
        "STORE_IMAGE": stand_ins["seaweedfs"],
    }
    with (checkout / "infra/compose/.env").open("a", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in own.items())
    try:
        made.shell(UP)
        yield made
    finally:
        made.compose("down", "--volumes", "--timeout", "60")


def test_all_services_are_healthy_and_what_is_to_end_has_ended(host: Host) -> None:
    found = host.containers()
    assert set(found) == {*SERVERS, *ENDING}
    assert {found[name]["State"]["Health"]["Status"] for name in SERVERS} == {"healthy"}
    assert {(found[name]["State"]["Status"], found[name]["State"]["ExitCode"]) for name in ENDING} == {("exited", 0)}
    logs = host.shell(LOGS)
    assert "gkd_prefect" in logs and "full-pipeline" in logs


def test_bootstrap_and_deploy_change_nothing_when_run_again(host: Host) -> None:
    assert "nothing changed" in host.compose("run", "--rm", "bootstrap")
    before = host.prefect("deployments/filter", {})
    host.compose("run", "--rm", "deploy")
    after = host.prefect("deployments/filter", {})
    assert sorted((each["id"], each["name"]) for each in after) == sorted((each["id"], each["name"]) for each in before)


@pytest.mark.parametrize(
    ("port", "path", "key"),
    [
        ("PREFECT_PORT", "/api/flow_runs/count", "prefect-auth"),
        ("MLFLOW_PORT", "/api/2.0/mlflow/experiments/search?max_results=5", "mlflow-admin"),
        ("RAY_DASHBOARD_PORT", "/api/jobs/", "ray-token"),
    ],
)
def test_nobody_gets_in_without_a_key(port: str, path: str, key: str, host: Host) -> None:
    body = {} if port == "PREFECT_PORT" else None
    user = "admin:" if port == "MLFLOW_PORT" else ""
    for wrong in (None, f"{user}wrong" if port != "PREFECT_PORT" else "gkd:wrong"):
        with pytest.raises(urllib.error.HTTPError, match="40[13]"):
            host.ask(port, path, wrong, body)
    host.ask(port, path, f"{user}{host.secret(key)}", body)


def test_ports_are_open_to_this_machine_alone(host: Host) -> None:
    open_to = {}
    for name, container in host.containers().items():
        bindings = [each for all_of_one in (container["NetworkSettings"]["Ports"] or {}).values() for each in all_of_one or []]
        open_to[name] = {each["HostIp"] for each in bindings}
    published = {name: places for name, places in open_to.items() if places}
    assert published == {name: {"127.0.0.1"} for name in ("prefect-server", "mlflow", "ray-head")}


@pytest.mark.parametrize("service", SERVERS)
def test_a_container_is_confined(service: str, host: Host) -> None:
    users = {"postgres": 70, "store": 1000}
    status = host.inside(service, "cat", "/proc/1/status")
    assert re.search(rf"^Uid:\t{users.get(service, 10001)}\t", status, re.MULTILINE)
    assert re.search(r"^Cap(Eff|Prm):\t0+$", status, re.MULTILINE) and re.search(r"^CapBnd:\t0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE) and re.search(r"^Seccomp:\t2$", status, re.MULTILINE)
    written = host.inside(service, "sh", "-c", "touch /gkd /usr/gkd /etc/gkd 2>&1 || true")
    assert written.count("Read-only file system") == 3


def firewall_rule() -> list[str]:
    """The one that docs/security.md names for IPv4."""
    text = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
    (rule,) = re.findall(r"^iptables --insert .*?(?=\s+#|$)", text, re.MULTILINE)
    return shlex.split(rule)


@pytest.fixture
def port_of_the_machine() -> Iterator[int]:
    """A port on which something of this machine listens, on all addresses."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield int(server.getsockname()[1])


def test_a_rule_closes_the_machines_own_ports_to_containers(host: Host, port_of_the_machine: int) -> None:
    (network,) = json.loads(host.engine.docker("network", "inspect", "gkd-test_services").stdout)
    address = network["IPAM"]["Config"][0]["Gateway"]  # this machine's own, in that network
    ask = f"import socket; socket.create_connection(({address!r}, {port_of_the_machine}), timeout=5); print('in')"

    def gets_in() -> bool:
        return "in" in host.inside("prefect-worker", "sh", "-c", f"python -c {shlex.quote(ask)} 2>/dev/null || true").split()

    assert gets_in(), "the rule is not needed any more: say so in docs/security.md"
    rule = firewall_rule()
    host.engine.command(rule)
    try:
        assert not gets_in()
        assert host.prefect("deployments/filter", {}), "what is published answers as before"
    finally:
        host.engine.command([{"--insert": "--delete"}.get(word, word) for word in rule])


def run_of_the_readme(host: Host, command: str) -> str:
    """What a command of section 4 prints, in the environment of the section's first two lines."""
    exports = [line for line in RUNS if line.startswith("export ")]
    return host.shell("\n".join([*exports, command]), RUN_SECONDS)


def test_the_pipeline_by_name_runs_stage_one_on_the_containers_ray(host: Host) -> None:
    (ask,) = [line for line in RUNS if line.startswith("prefect deployment run gkd/full-pipeline")]
    assert "gkd/full-pipeline" in run_of_the_readme(host, "prefect deployment ls")
    said = run_of_the_readme(host, ask.replace("--param profile=demo ", ""))  # the recipe of params.yaml, a small one
    assert "finished in state Completed" in said.replace("\n", " ")
    jobs = [job for job in host.ask("RAY_DASHBOARD_PORT", "/api/jobs/", host.secret("ray-token")) if job["type"] == "SUBMISSION"]
    assert [job["status"] for job in jobs] == ["SUCCEEDED", "SUCCEEDED"]
    assert set(host.steps("distill-proxy")) == set(range(1, UPDATES + 1))


def in_the_middle(host: Host, seed: int) -> str:
    """Id of a run of its own that is in the middle of stage one."""
    before = len(host.steps("distill-proxy"))
    run = host.start("full-pipeline", overrides=[f"seed={seed}"])
    wait_for(lambda: len(host.steps("distill-proxy")) > before + 2 * EVERY, "stage one to be at work", RUN_SECONDS)
    assert len(host.steps("distill-proxy")) < before + UPDATES
    return run


@pytest.mark.parametrize(
    ("service", "seed"),
    [("postgres", 11), ("prefect-server", 12), ("mlflow", 13), ("ray-worker", 14), ("ray-head", 15)],
)
def test_a_service_is_restarted_in_the_middle(service: str, seed: int, host: Host) -> None:
    run = in_the_middle(host, seed)
    host.compose("restart", service)
    host.end(run, "COMPLETED")


def test_the_store_stands_still_in_the_middle(host: Host) -> None:
    run = in_the_middle(host, 16)
    host.compose("pause", "store")  # the stand-in keeps all in memory: begun anew it would be empty
    time.sleep(20)
    host.compose("unpause", "store")
    host.end(run, "COMPLETED")


def test_a_worker_that_is_told_to_end_cancels_its_run_and_the_next_goes_on(host: Host) -> None:
    run = in_the_middle(host, 17)
    host.compose("restart", "prefect-worker")
    wait_for(lambda: host.state(run) in ("CANCELLED", "CRASHED", "FAILED"), "the run to end", 300)
    trained = len(host.steps("distill-proxy"))
    host.end(host.start("full-pipeline", overrides=["seed=17"]), "COMPLETED")
    assert len(host.steps("distill-proxy")) < trained + UPDATES, "it began from nothing"


def test_a_killed_worker_is_noticed_and_the_next_run_goes_on(host: Host) -> None:
    run = in_the_middle(host, 18)
    host.compose("kill", "prefect-worker")
    wait_for(lambda: host.state(run) == "CRASHED", "Prefect to miss the run's heartbeats", 300)
    host.shell(UP)
    trained = len(host.steps("distill-proxy"))
    host.end(host.start("full-pipeline", overrides=["seed=18"]), "COMPLETED")
    assert len(host.steps("distill-proxy")) < trained + UPDATES, "it began from nothing"


def test_what_was_run_is_there_after_down_and_up(host: Host) -> None:
    def known() -> set[str]:
        done = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        return {each["id"] for each in host.prefect("flow_runs/filter", done)}

    before = known()
    assert before
    host.compose("down", "--timeout", "60")
    host.shell(UP)
    assert before <= known()


def test_a_schedule_distils_and_the_student_becomes_champion(host: Host) -> None:
    """As the README says: the schedule stands in prefect.yaml, which is in the worker's image."""
    moment = datetime.now(UTC) + START
    path = host.checkout / "prefect.yaml"
    nightly, ours = 'cron: "0 3 * * *"', f'cron: "{moment.minute} {moment.hour} * * *"'
    text = path.read_text(encoding="utf-8")
    assert nightly in text
    path.write_text(text.replace(nightly, ours), encoding="utf-8")
    host.shell(BUILD[0], BUILD_SECONDS)
    host.shell(UP)
    (listing,) = [line for line in DAYS_AND_NIGHTS if "schedule ls" in line]
    assert f"{moment.minute} {moment.hour} * * *" in run_of_the_readme(host, listing)

    def fired() -> list[dict[str, Any]]:
        identity = host.prefect("deployments/name/gkd/redistill")["id"]
        wanted = {"deployments": {"id": {"any_": [identity]}}, "flow_runs": {"state": {"type": {"not_any_": ["SCHEDULED"]}}}}
        return list(host.prefect("flow_runs/filter", wanted))

    wait_for(lambda: bool(fired()), "the schedule to fire", START.total_seconds() + 300)
    host.end(str(fired()[0]["id"]), "COMPLETED")
    (registry,) = [line for line in DAYS_AND_NIGHTS if line.startswith("gkd registry list")]
    assert "champion" in run_of_the_readme(host, registry)
