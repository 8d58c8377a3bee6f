"""Each check on a machine where all is well, and on one where something is not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gkd_core.operations.doctor import CHECKS, Finding, Machine
from gkd_core.operations.doctor.disk import link_kinds
from gkd_core.operations.doctor.web import Reply, password_in, without_password
from gkd_core.settings import Settings
from gkd_core.system.loopback import free_port
from gkd_core.system.platform_state import PlatformState, ProcessMark, ServiceState, now
from tests.infra.kubernetes import REPOSITORY
from tests.read_only import run_with_read_only

from .conftest import GIB, REQUIRES, VERSIONS, Web

OK = Reply(200, '"3.8.8"', {})


def run(check: str, machine: Machine, **changes: Any) -> list[Finding]:
    return list(CHECKS[check](replace(machine, **changes)))


def levels(findings: Iterable[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def only(findings: Iterable[Finding]) -> Finding:
    (finding,) = findings
    return finding


def settings(**sections: Mapping[str, Any]) -> Settings:
    return Settings.model_validate(sections)


OFFLINE = [name for name in CHECKS if name not in ("GPUs", "Prefect server")]


@pytest.mark.parametrize("check", OFFLINE)
def test_a_good_machine_has_only_good_findings(check: str, good: Machine) -> None:
    assert set(levels(run(check, good))) <= {"ok"}


ELSEWHERE = Settings.model_validate({"compute": {"address": "http://127.0.0.1:1", "storage": "s3://bucket/runs"}})


def bad(check: str, level: str, found: str, advice: str, /, **changes: Any) -> Any:
    return pytest.param(check, level, found, advice, changes, id=f"{check}: {found}")


def versions(**changed: str | None) -> dict[str, Any]:
    return {"version_of": (VERSIONS | changed).get}


BAD = [
    bad("Python", "error", "3.15.0; needs >=3.11,<3.15", "PYTHON=", python="3.15.0"),
    bad("packages", "error", "2.10.0; needs <2.15,>=2.11", "uv pip install", **versions(torch="2.10.0")),
    bad("packages", "error", "not installed; needs >=1.0.31", "uv pip install", **versions(timm=None)),
    bad("packages", "warning", "not installed; needs >=3.8.8", "uv pip install", **versions(prefect=None)),
    bad("packages", "warning", "gkd itself is not installed", "--editable", **versions(gkd=None)),
    bad("torchvision", "error", "built for torch==2.13.0; torch 2.14.0+cpu", "one place", **versions(torch="2.14.0+cpu")),
    bad("torchvision", "error", "different builds", "one index", **versions(torch="2.13.0+cu130")),
    bad("CPUs", "warning", "1 for 2", "compute.workers", cpus=1),
    bad("memory", "error", "1.0 of 32.0 GiB free", "end other programs", memory_free=GIB),
    bad("memory", "warning", "4.0 of 32.0 GiB free, for 2", "compute.workers", memory_free=4 * GIB),
    bad("/dev/shm", "warning", "0.06 GiB", "--shm-size", shared_memory=64 * 1024**2),
    bad("/dev/shm", "warning", "absent", "tmpfs", shared_memory=None),
    bad("open files", "warning", "1024 open files", "ulimit -n", open_files=1024),
    bad("clock", "error", "before this program was installed", "set the clock", now=1e9),
    bad(
        "clock",
        "error",
        "+3600 s from the object store's",
        "NTP",
        now=1.8e9 + 3600,
        environment={"AWS_ENDPOINT_URL": "http://store"},
        get=Web({"http://store": Reply(403, "", {"Date": "Fri, 15 Jan 2027 08:00:00 GMT"})}),
    ),
    bad("names and passwords", "error", "AWS_SECRET_ACCESS_KEY is not", "or neither", environment={"AWS_ACCESS_KEY_ID": "x"}),
    bad("Ray token", "error", "there is none", "RAY_AUTH_TOKEN_PATH", environment={"RAY_AUTH_MODE": "token"}),
    bad("Ray token", "warning", "is not token", "RAY_AUTH_MODE=token", environment={"RAY_ADDRESS": "10.0.0.1:6379"}),
    bad("files of secrets", "error", "/absent is not there", "unset", environment={"RAY_AUTH_TOKEN_PATH": "/absent"}),
    bad("MLflow store", "error", "http://m: Connection refused", "make up", environment={"MLFLOW_TRACKING_URI": "http://m"}),
    bad(
        "MLflow store",
        "error",
        "does not let us in (401)",
        "MLFLOW_TRACKING_USERNAME",
        environment={"MLFLOW_TRACKING_URI": "http://m"},
        get=Web({"http://m": Reply(401, "", {})}),
    ),
    bad(
        "Prefect server",
        "error",
        "http://p/api: Connection refused",
        "PREFECT_API_URL",
        environment={"PREFECT_API_URL": "http://p/api"},
    ),
    bad(
        "Prefect server",
        "error",
        "does not let us in (401)",
        "PREFECT_API_AUTH_STRING",
        environment={"PREFECT_API_URL": "http://p/api"},
        get=Web({"http://p": Reply(401, "", {})}),
    ),
    bad(
        "Prefect server",
        "warning",
        "is version 3.0.0, here is 3.8.8",
        "one version",
        environment={"PREFECT_API_URL": "http://p/api"},
        get=Web({"http://p/api/admin/version": Reply(200, '"3.0.0"', {})}),
    ),
    bad("Prefect server", "warning", "none named", "make up"),
    bad("Ray token", "warning", "compute.address names a cluster", "RAY_AUTH_MODE=token", settings=ELSEWHERE),
    bad("Ray", "error", "http://127.0.0.1:1 does not answer", "check compute.address", settings=ELSEWHERE),
    bad("Ray", "warning", "ray://head:10001", "host:port", environment={"RAY_ADDRESS": "ray://head:10001"}),
]


@pytest.mark.parametrize(("check", "level", "found", "advice", "changes"), BAD)
def test_a_bad_machine_is_told_what_to_do(
    check: str, level: str, found: str, advice: str, changes: dict[str, Any], good: Machine
) -> None:
    finding = only(finding for finding in run(check, good, **changes) if finding.level != "ok")
    assert finding.level == level
    assert found in finding.found
    assert advice in finding.advice


def test_every_port_is_judged_and_the_platforms_own_is_ours(good: Machine) -> None:
    page = "http://127.0.0.1:5000"
    service = ServiceState(
        name="mlflow", title="MLflow server", health="healthy", page=page, check=f"{page}/health", log="x", since=now()
    )
    state = PlatformState(
        supervisor=ProcessMark(pid=1, began=0),
        mark="m",
        ports={"mlflow": 5000, "prefect": 4200},
        database="sqlite",
        services=(service,),
    )
    state.write(good.project)
    taken = {"is_free": lambda port: port == 4200}
    assert levels(run("ports", good, **taken)) == ["warning", "ok"]
    web = Web({f"{page}/health": OK})
    assert [finding.found for finding in run("ports", good, get=web, **taken)] == ["ours", "free"]


def test_requirements_are_compared_with_what_is_installed(good: Machine) -> None:
    (good.project / "requirements.txt").write_text(
        "# pinned\ntorch==2.13.0\ntimm==1.0.31\nonly-there==1 ; sys_platform == 'none'\n"
    )
    assert only(run("requirements.txt", good)).found == "all 2 packages as pinned"
    finding = only(run("requirements.txt", good, **versions(timm="1.0.99")))
    assert (finding.level, finding.found) == ("warning", "differs: timm 1.0.99 (==1.0.31)")


def test_ranges_are_those_that_the_package_declares() -> None:
    from importlib import metadata

    assert any(line.startswith("torch<") for line in metadata.requires("gkd") or [])
    assert REQUIRES["gkd"][0] in (metadata.requires("gkd") or [])


def test_a_password_is_sent_and_never_shown(good: Machine) -> None:
    environment = {"PREFECT_API_URL": "http://p/api", "PREFECT_API_AUTH_STRING": "ann:hidden"}
    web = Web({"http://p": OK})
    finding = only(run("Prefect server", good, environment=environment, get=web))
    assert web.asked[0][1] == {"Authorization": "Basic YW5uOmhpZGRlbg=="}
    assert "hidden" not in finding.model_dump_json()
    environment = {"MLFLOW_TRACKING_URI": "http://ann:hidden@m", "MLFLOW_TRACKING_TOKEN": "t0ken"}
    findings = run("MLflow store", good, environment=environment)
    assert levels(findings) == ["warning", "error"]
    assert not any("hidden" in finding.model_dump_json() or "t0ken" in finding.model_dump_json() for finding in findings)
    assert "hidden" not in repr(replace(good, environment=environment))


@pytest.mark.parametrize(("mode", "named", "level"), [(0o600, True, "ok"), (0o640, True, "error"), (0o644, False, "warning")])
def test_a_file_of_secrets_is_for_its_owner_alone(mode: int, named: bool, level: str, good: Machine) -> None:
    file = good.home / ".ray/auth_token"
    file.parent.mkdir(parents=True)
    file.write_text("t0ken")
    file.chmod(mode)
    environment = {"RAY_AUTH_TOKEN_PATH": str(file)} if named else {}
    finding = only(run("files of secrets", good, environment=environment))
    assert finding.level == level
    assert f"{mode:04o}" in finding.found
    assert "t0ken" not in finding.model_dump_json()


MOUNTED = """
import sys
from pathlib import Path
from gkd_core.operations.doctor.credentials import _judge_mode
for name in sys.argv[1:]:
    print(_judge_mode("RAY_AUTH_TOKEN_PATH", Path(name), in_use=True).level)
"""


def test_a_secret_that_only_its_mount_can_change_is_well(tmp_path: Path) -> None:
    """As compose hands it over: 0444, in a read-only mount. Not so in a folder that can be written, or as a file that can be."""
    files = {}
    for place in ("mounted", "writable"):
        for mode in (0o444, 0o644):
            file = files[place, mode] = tmp_path / place / f"{mode:o}"
            file.parent.mkdir(exist_ok=True)
            file.write_text("t0ken")
            file.chmod(mode)
    done = run_with_read_only(tmp_path / "mounted", MOUNTED, [str(file) for file in files.values()], REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert dict(zip(files, done.stdout.split(), strict=True)) == {
        ("mounted", 0o444): "ok", ("mounted", 0o644): "error", ("writable", 0o444): "error", ("writable", 0o644): "error",
    }  # fmt: skip


@pytest.mark.parametrize(("gib", "level"), [(100, "ok"), (5, "warning"), (0.5, "error")])
def test_room_on_disk(gib: float, level: str, good: Machine) -> None:
    assert levels(run("disk", good, disk_free=lambda folder: int(gib * GIB))) == [level] * 3


def test_links_are_tried_and_leave_nothing(tmp_path: Path) -> None:
    assert "hard links" in link_kinds(tmp_path, tmp_path)
    other = Path("/dev/shm")
    if other.is_dir() and other.stat().st_dev != tmp_path.stat().st_dev:
        assert link_kinds(tmp_path, other) == []
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_that_is_asked_for_and_not_there_is_an_error(good: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("PATH", "")
    assert only(run("GPUs", good)).level == "ok"
    finding = only(run("GPUs", good, settings=settings(compute={"device": "cuda"})))
    assert (finding.level, finding.found.split(";")[-1]) == ("error", " compute.device is cuda")


def test_a_driver_whose_gpus_torch_does_not_see_is_an_error(
    good: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 999.1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    assert "driver 999.1, but torch sees none" in only(run("GPUs", good)).found
    monkeypatch.setattr("torch.version.cuda", None)
    assert only(run("GPUs", good)).level == "warning"


def test_a_database_that_is_not_there(good: Machine) -> None:
    from gkd_core.errors import PlatformError

    address = f"postgresql://ann:hidden@127.0.0.1:{free_port()}"
    with pytest.raises(PlatformError, match="check host and port") as caught:
        run("PostgreSQL", good, environment={"GKD_DATABASE_URL": address})
    assert "hidden" not in str(caught.value)


def test_dvcs_remote_and_pins(good: Machine) -> None:
    assert only(run("storage", good)).found == "none; results stay on this machine"
    (good.project / "data").mkdir()
    (good.project / "data/city.dvc").touch()
    assert only(run("storage", good)).level == "warning"
    (good.project / ".dvc").mkdir()
    (good.project / ".dvc/config").write_text("[core]\n    remote = disk\n['remote \"disk\"']\n    url = ../../remote\n")
    assert only(run("storage", good)).level == "error"
    (good.project.parent / "remote").mkdir()
    assert only(run("storage", good)).found == str(good.project.parent / "remote")


def test_an_object_store_that_is_not_there(good: Machine) -> None:
    findings = run("storage", good, environment={"AWS_ENDPOINT_URL": "http://store"})
    assert levels(findings) == ["ok", "error"]
    there = Web({"http://store": Reply(403, "", {})})
    assert levels(run("storage", good, environment={"AWS_ENDPOINT_URL": "http://store"}, get=there)) == ["ok", "ok"]


@pytest.mark.parametrize(
    ("address", "shown", "has"),
    [
        ("http://ann:hidden@host:1/a?b=c", "http://ann@host:1/a?b=c", True),
        ("http://host:1/a", "http://host:1/a", False),
        ("postgresql://ann@host/db", "postgresql://ann@host/db", False),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str, has: bool) -> None:
    assert without_password(address) == shown
    assert password_in(address) is has
