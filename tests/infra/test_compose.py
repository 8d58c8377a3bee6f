"""The compose file: its schema, our own rules, that they see damage, and that it says the same as the Kubernetes manifests."""

from __future__ import annotations

import copy
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from gkd_core.cluster.own_cluster import OBJECT_STORE_BYTES
from tests.infra.compose import FOLDER, VARIABLE, example, offered, read_compose
from tests.infra.kubernetes import MANIFESTS, REPOSITORY, Manifests, Tree, render
from tests.infra.pod_policy import DIGEST, NAMES_A_FILE, PASSWORD_IN_ADDRESS, SECRET_NAME, mounted_variables
from tests.infra.variables import KNOWN

ONE_SHOT = {"bootstrap", "deploy"}
SMALL_HOST_CPUS, SMALL_HOST_MEMORY = 2, 16 * 1024**3
# What a client knows a server by, and the network in which both must be.
SERVERS = {"postgres": "database", "store": "store", "prefect-server": "services", "mlflow": "services", "ray-head": "ray"}


@pytest.fixture(scope="module")
def compose() -> Tree:
    """The file as Docker reads it, with the example's variables."""
    return read_compose()


@pytest.fixture(scope="module")
def dev() -> Manifests:
    return render(MANIFESTS / "overlays" / "dev")


def breaches(compose: Tree) -> list[str]:
    found = [f"{name}: {line}" for name, service in compose["services"].items() for line in _service(name, service, compose)]
    for name, network in compose["networks"].items():
        if name != "published" and network.get("internal") is not True:
            found.append(f"network {name} leads outside")
    return found + [f"secret {name} is not a file" for name, item in compose["secrets"].items() if set(item) != {"file"}]


def _service(name: str, service: Tree, compose: Tree) -> Iterator[str]:
    yield from _confined(service)
    yield from _runs(name, service)
    for port in service.get("ports", []):
        if not str(port).startswith("127.0.0.1:"):
            yield f"port {port} is open to other machines"
    for variable, value in service.get("environment", {}).items():
        if variable not in KNOWN:
            yield f"{variable}: a variable that nothing reads"
        if SECRET_NAME.search(variable) and not NAMES_A_FILE.search(variable):
            yield f"{variable}: a secret's value"
        if PASSWORD_IN_ADDRESS.search(str(value)):
            yield f"{variable}: a password in an address"
        yield from _is_near(service, variable, str(value), compose)
    for secret in service.get("secrets", []):
        folder, _, variable = secret["target"].rpartition("/")
        if folder == "/run/environment" and variable not in KNOWN:
            yield f"{variable}: a variable that nothing reads"


def _confined(service: Tree) -> Iterator[str]:
    if service.get("read_only") is not True:
        yield "its root can be written"
    if service.get("cap_drop") != ["ALL"] or service.get("cap_add") or service.get("privileged"):
        yield "keeps capabilities"
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield "may gain rights"
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", service.get("user", "")):
        yield "may run as root"
    if any(str(item).startswith(("/", ".")) for item in service.get("volumes", [])):
        yield "mounts a folder of the host"
    if not (DIGEST.fullmatch(service["image"]) or service["image"] in example().values()):
        yield f"image {service['image']} is not pinned by its digest"


def _runs(name: str, service: Tree) -> Iterator[str]:
    if not {"cpus", "mem_limit", "pids_limit"} <= set(service) or "deploy" in service:
        yield "has no limits"
    elif float(service["cpus"]) > SMALL_HOST_CPUS:
        yield f"wants {service['cpus']} cores, which Docker refuses on a host of {SMALL_HOST_CPUS}"
    expected = "on-failure" if name in ONE_SHOT else "unless-stopped"
    if service.get("restart") != expected:
        yield f"restarts {service.get('restart')}; expected {expected}"
    if (name in ONE_SHOT) == ("healthcheck" in service):
        yield "has no health check" if name not in ONE_SHOT else "ends, and has a health check"


def _is_near(service: Tree, variable: str, value: str, compose: Tree) -> Iterator[str]:
    for server, network in SERVERS.items():
        if re.search(rf"(^|//|@){server}(:|$)", value) and network not in service["networks"]:
            yield f"{variable}: {value} is not in its networks"
    match = re.search(r"//(?:[\w]+@)?([\w-]+):\d+", value)
    if match and match[1] not in compose["services"] and match[1] != "127" and not match[1].isdigit():
        yield f"{variable}: {match[1]} is no service"


def test_nothing_breaks_a_rule(compose: Tree) -> None:
    assert breaches(compose) == []


def test_the_file_fits_the_specification_of_compose(compose: Tree) -> None:
    assert set(_parsed(compose)) == set(compose["services"])
    damaged = copy.deepcopy(compose)
    damaged["services"]["mlflow"]["healthchek"] = {}
    with pytest.raises(ValueError, match="healthchek"):
        _parsed(damaged)


def _parsed(compose: Tree) -> list[str]:
    plain = {key: value for key, value in compose.items() if not key.startswith("x-")}
    return list(compose_spec.PyCompose.from_yaml(yaml.safe_dump(plain)).service_names())


def test_only_three_ports_are_published(compose: Tree) -> None:
    ports = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert ports == {
        "prefect-server": ["127.0.0.1:4200:4200"], "mlflow": ["127.0.0.1:5000:5000"], "ray-head": ["127.0.0.1:8265:8265"],
    }  # fmt: skip


def test_the_example_of_settings_has_no_secret_and_no_variable_too_many() -> None:
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    used = {match["name"]: match["default"] for match in VARIABLE.finditer(text) if match["name"]}
    assert set(used) | {"COMPOSE_PROJECT_NAME"} == set(example()) | set(offered())
    assert not [name for name in used if SECRET_NAME.search(name) and name != "GKD_SECRETS"]
    for name, value in offered().items():
        assert used[name] == value, f"{name}: the example names another default than the file has"


def test_every_secret_is_made_once_and_read_by_the_containers_alone(compose: Tree, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    script = REPOSITORY / "infra" / "secrets.sh"
    first = subprocess.run([script, folder], check=True, capture_output=True, text=True).stdout
    files = {path.name: path.read_text() for path in folder.iterdir()}
    assert {Path(item["file"]).name for item in compose["secrets"].values()} - {"basic_auth.ini"} <= set(files)
    assert first.count("made ") == len(files)
    assert len({line for text in files.values() for line in re.findall(r"[0-9a-f]{64}", text)}) == 16  # all of them different
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in folder.iterdir())
    (folder / "ray-token").unlink()
    assert subprocess.run([script, folder], check=True, capture_output=True, text=True).stdout == f"made {folder}/ray-token\n"
    assert all((folder / name).read_text() == text for name, text in files.items() if name != "ray-token")
    assert _uses(compose) <= set(compose["secrets"])


def _uses(compose: Tree) -> set[str]:
    return {secret["source"] for service in compose["services"].values() for secret in service.get("secrets", [])}


def test_git_does_not_take_the_secrets() -> None:
    done = subprocess.run(
        ["git", "check-ignore", "infra/compose/secrets/ray-token", "infra/compose/.env"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 128:
        pytest.skip("not a git checkout")
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    "name", ["prefect-server", "mlflow", "prefect-worker", "bootstrap", "deploy", "metrics", "postgres", "store"]
)
def test_compose_and_kubernetes_say_the_same(name: str, compose: Tree, dev: Manifests) -> None:
    service = compose["services"][name]
    (pod,) = [pod for pod in dev.pods() if pod.owner.endswith(f"/{name}")]
    container = pod.spec["containers"][0]
    database = dev.named("ConfigMap", "database-client")["data"]

    def expanded(value: str) -> str:
        return re.sub(r"\$\((\w+)\)", lambda match: database[match[1]], value)

    theirs = {key: expanded(value) for key, value in dev.environment(container).items()}
    ours = {key: str(value) for key, value in service.get("environment", {}).items()}
    theirs |= {"PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1"} if name == "prefect-worker" else {}
    assert ours == theirs
    mounted = {item["target"].rpartition("/")[2] for item in service["secrets"] if item["target"].startswith("/run/environment/")}
    assert mounted == set(mounted_variables(container, pod))
    command = [item.replace("lay-out-project && ", "") for item in service.get("command", [])]
    assert command == container.get("args", [])
    assert service["image"] == container["image"]


READING = {"prefect-read", "mlflow-metrics", "mlflow-metrics-name"}


def test_metrics_have_the_keys_that_only_read_and_no_others(compose: Tree, dev: Manifests) -> None:
    held = {name: {item["source"] for item in service.get("secrets", [])} for name, service in compose["services"].items()}
    assert held["metrics"] == READING
    assert {name for name, keys in held.items() if keys & READING} == {"metrics", "prefect-server", "deploy"}
    pods = [(pod.owner, mounted_variables(item, pod)) for pod in dev.pods() for item in pod.containers]
    on_a_cluster = {owner: {secret for secret, _ in found.values()} for owner, found in pods if found}
    assert on_a_cluster["Deployment/metrics"] == {"prefect-read", "mlflow-metrics"}
    holders = {owner for owner, keys in on_a_cluster.items() if keys & READING}
    assert holders == {"Deployment/metrics", "Deployment/prefect-server", "Job/deploy"}


def test_both_give_mlflow_the_same_rules_of_access(compose: Tree, dev: Manifests) -> None:
    ours = (FOLDER / compose["secrets"]["mlflow-auth"]["file"]).read_text(encoding="utf-8")
    assert ours == dev.named("ConfigMap", "mlflow-auth")["data"]["basic_auth.ini"]


DAMAGE: dict[str, Callable[[Any], object]] = {
    "mlflow: its root can be written": lambda services: services["mlflow"].pop("read_only"),
    "ray-head: keeps capabilities": lambda services: services["ray-head"].update(cap_add=["SYS_PTRACE"]),
    "store: may run as root": lambda services: services["store"].pop("user"),
    "postgres: may gain rights": lambda services: services["postgres"].pop("security_opt"),
    "postgres: has no limits": lambda services: services["postgres"].pop("pids_limit"),
    "mlflow: has no health check": lambda services: services["mlflow"].pop("healthcheck"),
    "mlflow: port 5000:5000 is open to other machines": lambda services: services["mlflow"].update(ports=["5000:5000"]),
    "image docker.io/library/postgres:17 is not pinned": lambda services: services["postgres"].update(
        image="docker.io/library/postgres:17"
    ),
    "MLFLOW_TRACKING_PASSWORD: a secret's value": lambda services: services["deploy"]["environment"].update(
        MLFLOW_TRACKING_PASSWORD="x"
    ),
    "PREFECT_API_URL: http://prefect-server:4200/api is not in its networks": lambda services: services["deploy"].update(
        networks=["store"]
    ),
    "MLFLOW_TRACKING_URI: mlfow is no service": lambda services: services["deploy"]["environment"].update(
        MLFLOW_TRACKING_URI="http://mlfow:5000"
    ),
    "ray-worker: mounts a folder of the host": lambda services: services["ray-worker"].update(
        volumes=["/var/run/docker.sock:/var/run/docker.sock"]
    ),
    "prefect-worker: wants 4 cores, which Docker refuses on a host of 2": lambda services: services["prefect-worker"].update(
        cpus="4"
    ),
    "mlflow: restarts None; expected unless-stopped": lambda services: services["mlflow"].pop("restart"),
}


@pytest.mark.parametrize("line", DAMAGE)
def test_damage_is_seen(line: str, compose: Tree) -> None:
    damaged = copy.deepcopy(compose)
    DAMAGE[line](damaged["services"])
    found = breaches(damaged)
    assert any(line in item for item in found), found


UNITS = {"m": 1024**2, "g": 1024**3}


def size(text: str) -> int:
    """A size as Docker reads it, in bytes."""
    return int(text[:-1]) * UNITS[text[-1]]


def test_no_service_may_take_more_memory_than_a_small_host_has(compose: Tree) -> None:
    limits = {name: size(service["mem_limit"]) for name, service in compose["services"].items()}
    assert max(limits.values()) <= SMALL_HOST_MEMORY / 2


def object_store(service: Tree) -> int:
    (found,) = re.findall(r"--object-store-memory=(\d+)", " ".join(service["command"]))
    return int(found)


@pytest.mark.parametrize("name", ["ray-head", "ray-worker", "prefect-worker"])
def test_rays_object_store_has_room_in_shared_memory(
    name: str, compose: Tree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By Ray's own rule; it advises a tenth more, and what the container may have at all must hold it too."""
    services = pytest.importorskip("ray._private.services")
    service = compose["services"][name]
    shared = size(service["shm_size"])
    # The worker's own clusters: gkd_core/cluster/own_cluster.py.
    store = OBJECT_STORE_BYTES if name == "prefect-worker" else object_store(service)
    monkeypatch.setattr("ray._private.utils.get_shared_memory_bytes", lambda: shared)
    place, _, taken = services.determine_plasma_store_config(store, str(tmp_path))
    assert (place, taken) == ("/dev/shm", store)
    assert shared >= 1.1 * store
    assert shared <= size(service["mem_limit"]) / 2
    monkeypatch.setattr("ray._private.utils.get_shared_memory_bytes", lambda: store - 1)
    assert services.determine_plasma_store_config(store, str(tmp_path))[0] == str(tmp_path), "the rule is Ray's"


LONGEST_END = {"ray-head": 43, "ray-worker": 39, "prefect-worker": 60}  # seconds, measured or as documented


def test_every_service_has_the_time_that_it_takes_to_stop(compose: Tree) -> None:
    for name, seconds in LONGEST_END.items():
        given = re.fullmatch(r"(\d+)(s|m)", compose["services"][name]["stop_grace_period"])
        assert given is not None
        assert int(given[1]) * {"s": 1, "m": 60}[given[2]] > seconds, name
    keeping = {"postgres", "store", "prefect-server", "mlflow"}
    assert {name for name in keeping if "stop_grace_period" in compose["services"][name]} == keeping
    assert compose["services"]["postgres"]["stop_signal"] == "SIGINT"


def test_another_image_can_take_the_place_of_a_public_one() -> None:
    given = {**example(), "POSTGRES_IMAGE": "mirror/postgres:17", "STORE_IMAGE": "mirror/store:1", "WORKER_CPUS": "8"}
    services = read_compose(given)["services"]
    assert (services["postgres"]["image"], services["store"]["image"]) == ("mirror/postgres:17", "mirror/store:1")
    assert services["prefect-worker"]["cpus"] == "8"
