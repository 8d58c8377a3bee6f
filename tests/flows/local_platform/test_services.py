"""What the platform's services are started with."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from flows.local_platform.services import Ports, client_environment, services
from flows.local_platform.start import check_ports, write_environment
from gkd_core.errors import PlatformError
from gkd_core.operations.postgres import database_named
from gkd_core.settings import Settings
from gkd_core.storage.mlflow_store import tracking_address
from gkd_core.system.loopback import free_port
from gkd_core.system.server_keys import ServerKeys
from gkd_core.tracking.flow_runs import Tracking

REPOSITORY = Path(__file__).parents[3]
PASSWORD = "s3cr3t"
PORTS = Ports(4300, 5100, 4301)
KEYS = ServerKeys.new()


def test_a_password_goes_by_environment_and_nowhere_else(tmp_path: Path) -> None:
    database = database_named({"GKD_DATABASE_URL": f"postgresql://ann:{PASSWORD}@127.0.0.1:5499"})
    all_services = services(tmp_path, PORTS, database, KEYS)
    holders = {s.name: [key for key, value in s.environment.items() if PASSWORD in value] for s in all_services}
    assert holders == {
        "prefect": ["PREFECT_API_DATABASE_CONNECTION_URL"],
        "mlflow": ["MLFLOW_BACKEND_STORE_URI"],
        "worker": [],
    }
    assert PASSWORD not in repr(all_services) + repr(database)
    words = repr(all_services) + "".join(word for service in all_services for word in service.command)
    assert not any(secret.rpartition(":")[2] in words for secret in (KEYS.prefect, KEYS.mlflow, KEYS.forms))
    assert not any(PASSWORD in word for service in all_services for word in service.command)


def test_every_command_names_loopback_or_listens_by_variable(tmp_path: Path) -> None:
    prefect, mlflow, worker = services(tmp_path, PORTS, None, KEYS)
    for service in (prefect, mlflow):
        assert service.command[service.command.index("--host") + 1] == "127.0.0.1"
    assert worker.environment["PREFECT_WORKER_WEBSERVER_HOST"] == "127.0.0.1"
    assert worker.needs == (prefect.name, mlflow.name)


def test_mlflow_serves_the_store_of_runs_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow = services(tmp_path, PORTS, None, KEYS)[1]
    assert mlflow.environment["MLFLOW_BACKEND_STORE_URI"] == tracking_address(None, tmp_path)
    tracking = Tracking(Settings(), tmp_path)
    location = tracking.client.get_experiment(tracking.experiment).artifact_location
    assert mlflow.command[mlflow.command.index("--default-artifact-root") + 1] == location


def test_the_worker_finds_both_servers_and_tells_of_its_runs(tmp_path: Path) -> None:
    environment = services(tmp_path, PORTS, None, KEYS)[2].environment
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4300/api"
    assert environment["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5100"
    assert environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"


def test_prefect_toml_names_the_usual_address() -> None:
    tree = tomllib.loads((REPOSITORY / "prefect.toml").read_text(encoding="utf-8"))
    assert tree["api"]["url"] == client_environment(Ports(), KEYS)["PREFECT_API_URL"]
    assert tree["server"]["analytics_enabled"] is False


def test_the_written_environment_can_be_sourced(tmp_path: Path) -> None:
    write_environment(tmp_path, PORTS, KEYS)
    script = ". artifacts/platform/env && printf '%s %s' $PREFECT_API_URL $MLFLOW_TRACKING_URI"
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "http://127.0.0.1:4300/api http://127.0.0.1:5100"


@pytest.mark.parametrize(
    ("before", "begin"), [({}, ("", "")), ({"NO_PROXY": "a.example", "no_proxy": "b.example"}, ("a.example,", "b.example,"))]
)
def test_the_written_environment_spares_loopback_from_proxies(
    tmp_path: Path, before: dict[str, str], begin: tuple[str, str]
) -> None:
    write_environment(tmp_path, PORTS, KEYS)
    script = ". artifacts/platform/env && printf '%s %s' $NO_PROXY $no_proxy"
    environment = {"PATH": os.environ["PATH"], **before}
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == " ".join(f"{first}127.0.0.1,localhost,::1" for first in begin)


def test_one_port_for_two_services_is_refused(tmp_path: Path) -> None:
    port = free_port()
    ports = Ports(port, port, free_port())
    with pytest.raises(PlatformError, match=rf"port {port} is given to two services; choose another by make up PREFECT_PORT=…"):
        check_ports(services(tmp_path, ports, None, KEYS), ports)
