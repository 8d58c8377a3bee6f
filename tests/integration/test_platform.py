"""`make up` on real servers: all of it comes up, what dies is started again, a flow runs by name, nothing stays behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import requests
from mlflow.server.handlers import get_endpoints
from mlflow.tracking import MlflowClient
from prefect.server.api.server import create_app
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from flows.local_platform import processes
from gkd_core.storage.mlflow_store import STORE
from gkd_core.system.loopback import answers, free_port
from gkd_core.system.platform_state import FOLDER, PlatformState, ServiceState, read_state
from gkd_core.system.process_marks import is_running
from gkd_core.system.server_keys import read_keys
from tests.security.listening import beyond_loopback, listening

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
DEPLOYMENT = "gkd/full-pipeline"
FINISHED = "Flow run finished successfully"


class Platform:
    """The commands, run in a project on ports of its own."""

    def __init__(self, project: Path, **variables: str) -> None:
        self.project = project
        self._ports = {name: str(free_port()) for name in ("PREFECT_PORT", "MLFLOW_PORT", "WORKER_PORT")}
        left_out = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "GKD_DATABASE_URL", "PGPASSWORD")
        self._environment = {name: value for name, value in os.environ.items() if name not in left_out}
        self._environment |= {"COLUMNS": "200", **variables}

    def begin(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "flows.local_platform", *arguments]
        environment = {**self._environment, **self._ports, **variables}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.project, env=environment, stdout=pipe, stderr=pipe, text=True)

    def __call__(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        process = self.begin(*arguments, **variables)
        output, errors = process.communicate(timeout=600)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def prefect(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The prefect command, after `source artifacts/platform/env`."""
        return self.sourced(str(Path(sys.executable).with_name("prefect")), *arguments)

    def sourced(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command, run in the project after `source artifacts/platform/env`."""
        script = f'. {FOLDER / "env"} && exec "$@"'
        command = ["sh", "-c", script, "sh", *words]
        return subprocess.run(
            command, cwd=self.project, env=self._environment, capture_output=True, text=True, timeout=600, check=False
        )

    def sign_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process be a client of the servers, until the test's end."""
        keys = read_keys(self.project / FOLDER)
        assert keys is not None
        for name, value in keys.variables().items():
            monkeypatch.setenv(name, value)

    @property
    def state(self) -> PlatformState:
        state = read_state(self.project)
        assert state is not None
        return state

    def service(self, name: str) -> ServiceState:
        return next(service for service in self.state.services if service.name == name)


@pytest.fixture(scope="module")
def platform(project: Path) -> Iterator[Platform]:
    platform = Platform(project)
    yield platform
    platform("down")


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {what}"
        time.sleep(0.2)


def test_two_at_once_make_one_platform_that_is_well(platform: Platform) -> None:
    both = [platform.begin("up") for _ in range(2)]
    outputs = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    firsts = sorted(output.splitlines()[0] for output, _ in outputs)
    assert firsts == ["The platform is up.", "The platform was up already; its set-up was applied again."]
    assert platform.state.is_well
    assert all(answers(service.check) for service in platform.state.services)
    assert "gkd/full-pipeline" in platform.prefect("deployment", "ls").stdout
    done = platform("status")
    assert done.returncode == 0
    assert done.stdout.count("healthy") == 3


def test_everything_listens_on_loopback_only(platform: Platform) -> None:
    found = listening(processes.marked(platform.state.mark))
    assert {item.port for item in found} >= set(platform.state.ports.values())
    assert beyond_loopback(found) == []


def test_nobody_gets_in_without_the_key(platform: Platform) -> None:
    """What another user of this machine, or a page of another site, would try."""
    keys, state = read_keys(platform.project / FOLDER), platform.state
    assert keys is not None
    prefect, mlflow = (f"http://127.0.0.1:{state.ports[name]}" for name in ("prefect", "mlflow"))
    users = {prefect: tuple(keys.prefect.split(":", 1)), mlflow: ("gkd", keys.mlflow)}
    code = {"job_variables": {"command": "touch /tmp/never"}, "name": "x"}
    asked = [
        ("POST", f"{prefect}/api/deployments/filter", {}),
        ("POST", f"{prefect}/api/flow_runs/", code),
        ("POST", f"{prefect}/api/deployments/00000000-0000-0000-0000-000000000000/create_flow_run", code),
        ("GET", f"{prefect}/api/admin/settings", None),
        ("GET", f"{mlflow}/api/2.0/mlflow/experiments/search?max_results=1", None),
        ("GET", f"{mlflow}/ajax-api/2.0/mlflow/experiments/search?max_results=1", None),
        ("POST", f"{mlflow}/api/2.0/mlflow/runs/create", {"experiment_id": "0"}),
        ("GET", f"{mlflow}/api/2.0/mlflow-artifacts/artifacts?path=", None),
        ("PUT", f"{mlflow}/api/2.0/mlflow-artifacts/artifacts/x", None),
    ]
    for method, url, body in asked:
        for auth in (None, ("gkd", "wrong"), ("admin", "password1234")):
            assert requests.request(method, url, json=body, auth=auth, timeout=60).status_code == 401, (url, auth)
    for server, (user, key) in users.items():
        path = "/api/deployments/filter" if server == prefect else "/api/2.0/mlflow/experiments/create"
        refused = requests.post(server + path, json={}, auth=(user, key), headers={"Host": "evil.example"}, timeout=60)
        assert refused.status_code in (400, 403), "another name that leads here"
        page = {"Origin": "http://evil.example"}
        answer = requests.post(server + path, json={"name": "page"}, auth=(user, key), headers=page, timeout=60)
        assert answer.status_code == 403 or "access-control-allow-origin" not in answer.headers, "a page of another site"
    assert requests.post(f"{prefect}/api/deployments/filter", json={}, auth=users[prefect], timeout=60).status_code == 200
    search = f"{mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    assert requests.get(search, auth=users[mlflow], timeout=60).status_code == 200


# What needs no key by design: whether a server is well, and what kind of store it has.
OPEN = {"/api/health", "/api/ready", "/api/3.0/mlflow/server-info", "/ajax-api/3.0/mlflow/server-info"}


def test_every_route_asks_for_the_key(platform: Platform) -> None:
    """Each that the servers themselves list, not those that we thought of."""
    ports = platform.state.ports
    prefect, mlflow = (f"http://127.0.0.1:{ports[name]}" for name in ("prefect", "mlflow"))
    described = create_app(ephemeral=True).openapi()["paths"]
    routes = [(prefect, f"/api{path}", method) for path, methods in described.items() for method in methods]
    routes += [(mlflow, path, method) for path, _, methods in get_endpoints() for method in methods]
    assert len([server for server, _, _ in routes if server == prefect]) > 150 and len(routes) > 300
    unanswered = {}
    with requests.Session() as session:
        for server, path, method in routes:
            filled = re.sub(r"[{<][^}>]*[}>]", "00000000-0000-0000-0000-000000000000", path)
            answer = session.request(method.upper(), server + filled, json={}, timeout=60, allow_redirects=False)
            if answer.status_code not in (401, 403, 404, 405):
                unanswered[path] = answer.status_code
    assert set(unanswered) <= OPEN, unanswered


@pytest.mark.parametrize(
    "path",
    ["events/in", "events/out", "logs/out", "task_runs/subscriptions/scheduled", "work_pools/gkd/workers/connect"],
)
@pytest.mark.parametrize("said", [None, {"type": "auth", "token": "wrong"}, {"type": "auth", "token": None}])
def test_every_socket_asks_for_the_key(platform: Platform, path: str, said: dict[str, object] | None) -> None:
    address = f"ws://127.0.0.1:{platform.state.ports['prefect']}/api/{path}"
    with pytest.raises((ConnectionClosed, InvalidHandshake)), connect(address, subprotocols=[Subprotocol("prefect")]) as socket:
        socket.send(json.dumps(said or {"type": "filter", "filter": {}}))
        answer = json.loads(socket.recv(timeout=60))
        assert answer.get("type") != "auth_success", answer
        socket.recv(timeout=60)


def test_keys_and_databases_are_their_owners_alone_and_in_no_log_or_command(platform: Platform) -> None:
    keys = read_keys(platform.project / FOLDER)
    assert keys is not None
    names = ("*.db*", "keys.json", "env", "prefect-profile.toml")
    private = [path for name in names for path in (platform.project / "artifacts").rglob(name)]
    assert len(private) >= 6
    assert {str(path): oct(path.stat().st_mode & 0o777) for path in private if path.stat().st_mode & 0o077} == {}
    secrets = [keys.prefect.partition(":")[2], keys.mlflow, keys.forms]
    logs = [path.read_text(errors="replace") for path in (platform.project / "artifacts/logs").iterdir() if path.is_file()]
    commands = [" ".join(process.cmdline()) for process in processes.marked(platform.state.mark)]
    state = (platform.project / FOLDER / "state.json").read_text()
    assert not [secret for secret in secrets for text in (*logs, *commands, state) if secret in text]


def test_the_prefect_command_signs_in_by_prefect_toml(platform: Platform) -> None:
    environment = {**os.environ, "PREFECT_API_URL": f"http://127.0.0.1:{platform.state.ports['prefect']}/api"}
    command = [str(Path(sys.executable).with_name("prefect")), "deployment", "ls"]
    done = subprocess.run(
        command, cwd=platform.project, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0 and "gkd/full-pipeline" in done.stdout, done.stderr


def test_a_killed_server_is_started_again_and_the_rest_stays(platform: Platform) -> None:
    before = platform.state
    killed = platform.service("mlflow").pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(killed), 10, "the server to die")
    assert platform("status").returncode == 1
    wait_for(lambda: platform.service("mlflow").restarts == 1 and platform.state.is_well, 240, "MLflow to be well again")
    assert platform.service("mlflow").pid != killed
    unchanged = [service for service in before.services if service.name != "mlflow"]
    assert [service for service in platform.state.services if service.name != "mlflow"] == unchanged
    assert (platform.project / "artifacts/logs/mlflow.log.1").exists()


def test_the_doctor_finds_the_platforms_services_well(platform: Platform) -> None:
    gkd = "import sys; sys.argv[0] = 'gkd'; from gkd_core.cli import main; main()"
    done = platform.sourced(sys.executable, "-c", gkd, "doctor", "--json")
    found = {item["subject"]: (item["level"], item["found"]) for item in json.loads(done.stdout)}
    ports = platform.state.ports
    assert {found[f"port {port}, {name}"] for name, port in ports.items()} == {("ok", "ours")}
    assert found["Prefect server"][0] == "ok"
    assert found["MLflow store"] == ("ok", f"http://127.0.0.1:{ports['mlflow']} answers")


def test_another_port_for_what_runs_is_refused(platform: Platform) -> None:
    done = platform("up", MLFLOW_PORT=str(free_port()))
    assert done.returncode == 2
    assert done.stderr.startswith(f"gkd: mlflow runs on port {platform.state.ports['mlflow']} already")


def test_the_nightly_flow_has_its_next_runs(platform: Platform) -> None:
    # Prefect's scheduler makes them; with a SQLAlchemy that it does not get on with there are none, and only its log says so.
    query = (
        "SELECT count(*) FROM flow_run JOIN deployment ON deployment.id = flow_run.deployment_id "
        "WHERE deployment.name = 'redistill' AND flow_run.state_type = 'SCHEDULED'"
    )

    def scheduled() -> int:
        with closing(sqlite3.connect(platform.project / FOLDER / "prefect/prefect.db")) as database:
            return int(database.execute(query).fetchone()[0])

    wait_for(lambda: scheduled() > 0, 120, "the next runs of gkd/redistill")


@pytest.mark.slow
def test_a_flow_runs_by_name_and_mlflow_has_it(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    assert platform("up").returncode == 0  # it stands already, where the tests above have run
    platform.sign_in(monkeypatch)
    done = platform.prefect("deployment", "run", DEPLOYMENT, "--watch")
    assert FINISHED in done.stdout, done.stdout + done.stderr + (platform.project / "artifacts/logs/worker.log").read_text()
    client = MlflowClient(platform.service("mlflow").page)
    experiment = client.get_experiment_by_name("gkd")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    # The same store as without a server: what one wrote, the other reads, files included.
    local = MlflowClient(f"sqlite:///{platform.project / 'artifacts/mlflow/mlflow.db'}")
    (parent,) = [run for run in local.search_runs([experiment.experiment_id]) if "mlflow.parentRunId" not in run.data.tags]
    assert {item.path for item in local.list_artifacts(parent.info.run_id)} == {
        item.path for item in client.list_artifacts(parent.info.run_id)
    }
    assert "report" in {item.path for item in local.list_artifacts(parent.info.run_id)}


@pytest.mark.slow
def test_a_killed_supervisor_leaves_nothing_and_up_starts_anew(platform: Platform) -> None:
    assert platform("up").returncode == 0
    before = platform.state
    os.kill(before.supervisor.pid, signal.SIGKILL)
    done = platform("up")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The platform is up.")
    assert platform.state.mark != before.mark
    assert processes.marked(before.mark) == []


def test_down_leaves_no_process(platform: Platform) -> None:
    before = platform.state
    assert len(processes.marked(before.mark)) >= 6
    done = platform("down")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Stopped: Prefect server, MLflow server, worker of pool gkd")
    assert processes.marked(before.mark) == []
    assert not is_running(before.supervisor)
    assert platform("down").stdout == "Nothing was running.\n"
    done = platform("status")
    assert (done.returncode, done.stdout) == (1, "Nothing is running; `make up` starts it.\n")


@pytest.mark.slow
def test_a_flow_outlives_its_prefect_server(platform: Platform) -> None:
    assert platform("up").returncode == 0
    before = platform.state
    name = begin_long_run(platform, seed=8, updates=1_500)
    server = platform.service("prefect")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: platform.service("prefect").restarts == 1 and platform.state.is_well, 240, "Prefect to be well again")
    assert in_stage(platform), "the stage was over too soon to prove anything"
    # The table is the server's: what the flow said while there was no server has arrived, and its end has.
    wait_for(lambda: flow_run_states(platform)[name] == "COMPLETED", 400, "the flow run to end well")
    assert platform.service("worker") == next(service for service in before.services if service.name == "worker")
    assert set(mlflow_statuses(platform)) == {"FINISHED"}


@pytest.mark.slow
def test_down_stops_flow_runs_and_they_are_not_left_running(platform: Platform) -> None:
    assert platform("up").returncode == 0
    name = begin_long_run(platform, seed=7, updates=1_000_000)
    mark = platform.state.mark
    done = platform("down")
    assert "and 1 flow run." in done.stdout
    assert processes.marked(mark) == []
    states = flow_run_states(platform)
    assert states[name] == "CRASHED"
    # One that were left so would hold its deployment's only place for ever.
    assert not {"RUNNING", "PENDING", "CANCELLING"} & set(states.values())
    # The run of the flow and that of its stage; both have heard of it before the servers ended.
    assert mlflow_statuses(platform).count("FAILED") == 2
    assert "RUNNING" not in mlflow_statuses(platform)


def begin_long_run(platform: Platform, seed: int, updates: int) -> str:
    """Have a flow run begin, and wait until it is in the midst of its longest stage; its name."""
    before = flow_run_states(platform).keys()
    overrides = f'overrides=["seed={seed}", "learn_task.end_to_end_updates={updates}"]'
    assert platform.prefect("deployment", "run", DEPLOYMENT, "--param", overrides).returncode == 0
    wait_for(lambda: in_stage(platform), 240, "the stage to start")
    (name,) = flow_run_states(platform).keys() - before
    return name


def in_stage(platform: Platform) -> bool:
    return any("learn-task" in arguments(process) for process in processes.marked(platform.state.mark))


def arguments(process: psutil.Process) -> list[str]:
    """Of a live process; none of one that has ended meanwhile."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def flow_run_states(platform: Platform) -> dict[str, str]:
    """What Prefect's database says of each run of the pipeline, by the run's name."""
    query = (
        "SELECT flow_run.name, flow_run.state_type FROM flow_run JOIN deployment ON deployment.id = flow_run.deployment_id "
        "WHERE deployment.name = 'full-pipeline'"
    )
    with closing(sqlite3.connect(platform.project / FOLDER / "prefect/prefect.db")) as database:
        return dict(database.execute(query).fetchall())


def mlflow_statuses(platform: Platform) -> list[str]:
    """How MLflow's database says that each run ended."""
    with closing(sqlite3.connect(platform.project / STORE / "mlflow.db")) as database:
        return [status for (status,) in database.execute("SELECT status FROM runs")]


def test_a_port_in_use_is_one_line_and_exit_2(platform: Platform) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = platform("up", MLFLOW_PORT=str(port))
    assert done.returncode == 2
    assert done.stderr == (
        f"gkd: port {port} (MLflow server) is in use; choose another by make up MLFLOW_PORT=… (or --mlflow-port)\n"
    )
