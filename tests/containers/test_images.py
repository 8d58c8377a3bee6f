"""The images, built behind this machine's mirrors and looked into; each container here is confined as ours are."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import socket
import subprocess
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.containers.conftest import BUILD_SECONDS, MARK, MARKS
from tests.containers.engine import REPOSITORY, Engine
from tests.containers.layers import entries

pytestmark = MARKS

# Without a registry nothing says what a pull would take; this is what `docker image ls` shows, in bytes.
MOST = {"service": 1_000_000_000, "worker": 2_500_000_000}
EITHER = pytest.mark.parametrize("target", ["service", "worker"])
# Prints what of the environment was imported and has no bytecode that Python would take.
UNCOMPILED = """
import importlib, pathlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
count = 0
for module in list(sys.modules.values()):
    source = getattr(module, "__file__", None) or ""
    if source.startswith("/opt/venv/") and source.endswith(".py"):
        count += 1
        path = pathlib.Path(source)
        stamp = int(path.stat().st_mtime) & 0xFFFFFFFF
        # By another name where a package has it compiled in a way of its own, as beartype does.
        cached = (path.parent / "__pycache__").glob(f"{path.stem}.{sys.implementation.cache_tag}*.pyc")
        if stamp not in {int.from_bytes(each.read_bytes()[8:12], "little") for each in cached}:
            print("uncompiled", source)
print("imported", count)
"""
# Prints each library that another one is linked to and that is nowhere in the environment or the system.
UNLINKED = r"""
cd /opt/venv
find . -name '*.so*' -type f | while read -r library; do
    ldd "$library" 2>/dev/null | awk -v library="$library" '/not found/ { print $1, library }'
done | sort -u | while read -r name library; do
    [ -n "$(find . -name "$name" -print -quit)" ] || echo "$name wanted by $library"
done
"""


@pytest.fixture
def image(target: str, request: pytest.FixtureRequest) -> str:
    """The image that is asked about; the other one is not built for it."""
    return str(request.getfixturevalue(f"{target}_image"))


@EITHER
def test_an_image_is_no_larger_than_promised(target: str, image: str, engine: Engine) -> None:
    size = int(engine.docker("image", "inspect", "--format", "{{.Size}}", image).stdout)
    assert 100_000_000 < size < MOST[target]


@EITHER
def test_an_image_says_what_it_was_made_of_and_runs_as_nobody(target: str, image: str, engine: Engine) -> None:
    (found,) = json.loads(engine.docker("image", "inspect", image).stdout)
    config = found["Config"]
    assert config["Labels"]["org.opencontainers.image.revision"] == engine.command(["git", "rev-parse", "HEAD"]).stdout.strip()
    assert config["Labels"]["org.opencontainers.image.title"] == f"gkd {target}"
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["tini", "-g", "--", "entrypoint"]


@EITHER
def test_no_layer_has_a_setting_of_the_machine_that_built_it(image: str, engine: Engine, tmp_path: Path) -> None:
    saved = tmp_path / "image.tar"
    engine.docker("save", "--output", str(saved), image, seconds=900)
    paths: dict[str, bool] = {}
    for path, marked in entries(saved, MARK):
        paths[path] = marked or paths.get(path, False)
    saved.unlink()
    assert len(paths) > 10_000
    assert [path for path, marked in paths.items() if marked] == []
    unwanted = re.compile(r"^(run/secrets/.|etc/pip\.conf|etc/uv|root/\.cache/.|torch-wheels|build/|var/lib/apt/lists/.+_Pack)")
    assert [path for path in paths if unwanted.match(path)] == []


def test_a_setting_that_a_later_layer_removes_is_found(engine: Engine, scratch_image: str, tmp_path: Path) -> None:
    base = engine.environment["GKD_TEST_PYTHON_IMAGE"]
    (tmp_path / "pip.conf").write_text(MARK)
    (tmp_path / "Dockerfile").write_text(f"FROM {base}\nCOPY pip.conf /etc/pip.conf\nRUN rm /etc/pip.conf\n")
    engine.docker("buildx", "build", "--load", "--tag", scratch_image, str(tmp_path))
    engine.docker("save", "--output", str(tmp_path / "image.tar"), scratch_image)
    assert ("etc/pip.conf", True) in set(entries(tmp_path / "image.tar", MARK))


@EITHER
def test_nothing_can_be_built_or_installed_in_a_container(image: str, engine: Engine) -> None:
    tools = engine.run(image, "sh", "-c", "command -v gcc cc g++ c++ clang ld make pip pip3 uv curl wget; true").stdout
    assert tools == ""
    refused = engine.run(image, "python", "-m", "pip", "--version", check=False)
    assert refused.returncode == 1
    assert "No module named pip" in refused.stderr


@EITHER
def test_a_container_has_no_rights_and_writes_where_it_is_let(image: str, engine: Engine) -> None:
    script = """
        id --user; id --groups
        grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status
        for place in / /opt/venv /usr/local/bin /etc /home/gkd /tmp; do
            touch "$place/mine" 2>/dev/null && echo "writes $place"
        done
        find / -xdev -perm /6000 -type f -user root -newer /etc/profile.d/gkd.sh 2>/dev/null
        find /opt /usr -xdev ! -user root 2>/dev/null | head
    """
    lines = engine.run(image, "sh", "-c", script).stdout.split("\n")[:-1]
    assert lines[:2] == ["10001", "10001"]
    assert {line.split()[1] for line in lines[2:4]} == {"0000000000000000"}
    assert lines[4].split()[1] == "1"
    assert lines[5:] == ["writes /home/gkd", "writes /tmp"]


@EITHER
def test_every_library_finds_those_that_it_is_linked_to(image: str, engine: Engine) -> None:
    found = engine.run(image, "sh", "-c", UNLINKED).stdout.splitlines()
    # Of CUDA's driver, which the host brings, and of hardware that a program of its own asks for.
    expected = re.compile(r"^(libcu|libnv|libmlx5|libibverbs|librdmacm|libfabric|libpmi|liboshmem|libmpi|libuc[sp])")
    assert [line for line in found if not expected.match(line)] == []


@pytest.mark.parametrize(
    ("target", "programs"),
    [
        ("service", ["prefect version", "mlflow --version", "uvicorn --version", "gkd infra bootstrap --help"]),
        ("worker", ["prefect version", "mlflow --version", "ray --version", "dvc --version", "gkd run --help", "git --version"]),
    ],
)  # fmt: skip
def test_programs_of_an_image_start_on_a_read_only_root(programs: list[str], image: str, engine: Engine) -> None:
    for program in programs:
        done = engine.run(image, *program.split())
        assert done.stdout, program


@pytest.mark.parametrize(
    ("target", "modules"),
    [
        ("service", ["flows.prefect_app", "prefect.server.api.server", "mlflow.server.auth", "mlflow.server.fastapi_app",
                     "gkd_core.cli.app", "pyarrow", "pandas"]),
        ("worker", ["flows.pipeline", "flows.redistill", "gkd_core.distill.stage_one", "gkd_core.cluster.train", "timm",
                    "pandas", "pyarrow", "ray.scripts.scripts", "ray.dashboard.dashboard", "dvc.repo", "mlflow",
                    "prefect.workers.process"]),
    ],
)  # fmt: skip
def test_what_containers_import_is_there_and_compiled(modules: list[str], image: str, engine: Engine) -> None:
    *uncompiled, last = engine.run(image, "python", "-c", UNCOMPILED, *modules).stdout.splitlines()
    assert uncompiled == []
    assert int(last.removeprefix("imported ")) > 1000


@pytest.mark.parametrize("target", ["service"])
def test_the_service_image_has_no_torch(image: str, engine: Engine) -> None:
    for module in ("torch", "ray", "dvc", "transformers"):
        assert f"No module named '{module}'" in engine.run(image, "python", "-c", f"import {module}", check=False).stderr


@pytest.mark.parametrize("target", ["worker"])
def test_compiling_is_refused_by_name_where_there_is_no_compiler(image: str, engine: Engine) -> None:
    code = "from gkd_core.system.compiler import check_compiler; check_compiler('cpu')"
    done = engine.run(image, "python", "-c", code, check=False)
    assert done.returncode == 1
    assert "compile: torch.compile for cpu needs a compiler, and this host has no g++; set compile: false" in done.stderr


@EITHER
def test_secrets_are_variables_of_the_command_alone(image: str, engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "PGPASSWORD").write_text("two words\n")
    mount = ["--volume", f"{tmp_path}:/run/environment:ro"]
    tmp_path.chmod(0o755)
    assert engine.run(image, "sh", "-c", 'printf %s "$PGPASSWORD"', options=mount).stdout == "two words"
    (tmp_path / "PGPASSWORD").write_text("")
    refused = engine.run(image, "echo", "started", options=mount, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "PGPASSWORD: empty; expected" in refused.stderr


@pytest.mark.parametrize("target", ["worker"])
def test_the_worker_lays_the_project_out(image: str, engine: Engine) -> None:
    options = ["--tmpfs", "/srv/gkd:mode=0700,uid=10001,gid=10001"]
    found = engine.run(image, "sh", "-c", "lay-out-project && ls -A . .dvc && gkd settings | head -n 3", options=options).stdout
    assert {".dvc", "dvc.yaml", "flows", "params.yaml", "prefect.yaml", "config"} <= set(found.split())


def test_the_script_builds_both_for_one_host(service_image: str, worker_image: str, engine: Engine, build_options: Path) -> None:
    # Both are in the builder's cache by now, so this takes seconds.
    engine.command(["infra/images/build.sh", "local", "cpu"], seconds=BUILD_SECONDS, GKD_BUILD_OPTIONS=str(build_options))
    for name in ("gkd-service:dev", "gkd-worker:dev"):
        (found,) = json.loads(engine.docker("image", "inspect", name).stdout)
        label = found["Config"]["Labels"]["org.opencontainers.image.revision"]
        assert name == "gkd-service:dev" or f"GKD_REVISION={label}" in found["Config"]["Env"]
        assert label.removesuffix("+changes") == engine.command(["git", "rev-parse", "HEAD"]).stdout.strip()


@pytest.fixture
def torch_index(tmp_path: Path) -> Iterator[str]:
    """An index of packages on loopback, with empty builds of the pinned torch and torchvision for the CPU."""
    text = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8")
    for name, version in re.findall(r"^(torch|torchvision)==([^ ;\n]+)", text, re.MULTILINE):
        folder, label = tmp_path / "simple" / name, f"{name}-{version}+cpu"
        folder.mkdir(parents=True)
        files = {
            "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}+cpu\n",
            "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        files["RECORD"] = "".join(f"{label}.dist-info/{each},,\n" for each in (*files, "RECORD"))
        with zipfile.ZipFile(folder / f"{label}-py3-none-any.whl", "w") as wheel:
            for each, content in files.items():
                wheel.writestr(f"{label}.dist-info/{each}", content)
        (folder / "index.html").write_text(f'<a href="{label}-py3-none-any.whl">{label}</a>')
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()
        thread.join()


def test_torch_for_the_cpu_comes_from_the_index_that_is_named(engine: Engine, build_options: Path, torch_index: str) -> None:
    options = [line for line in build_options.read_text().split("\n")[:-1] if "torch-wheels" not in line]
    options += ["--progress=plain", "--output=type=cacheonly", "--build-arg=TORCH=cpu", f"--build-arg=TORCH_INDEX={torch_index}"]
    arguments = ["buildx", "build", "--file", "infra/images/Dockerfile", "--target", "install-torch", *options, "."]
    done = engine.docker(*arguments, seconds=BUILD_SECONDS)
    assert re.findall(r" \+ (torch\w*)==\S+\+cpu$", done.stderr, re.MULTILINE) == ["torch", "torchvision"]


@pytest.fixture
def registry(engine: Engine, tmp_path: Path) -> Iterator[str]:
    """A registry on loopback, without keys."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "registry")}}
    (tmp_path / "registry.yml").write_text(json.dumps({"version": "0.1", "storage": storage, "http": {"addr": address}}))
    command = ["docker-registry", "serve", tmp_path / "registry.yml"]
    with (
        (tmp_path / "registry.log").open("wb") as log,
        subprocess.Popen(command, env=dict(engine.environment), stdout=log, stderr=log) as server,
    ):
        try:
            for _ in range(100):
                with suppress(OSError), urllib.request.urlopen(f"http://{address}/v2/", timeout=5):
                    break
                time.sleep(0.2)
            else:
                raise AssertionError((tmp_path / "registry.log").read_text()[-2000:])
            yield address
        finally:
            server.terminate()


def test_the_script_pushes_and_pins_what_the_registry_has(
    service_image: str, worker_image: str, engine: Engine, build_options: Path, registry: str, tmp_path: Path
) -> None:
    checkout = tmp_path / "checkout"  # the script writes into the overlay, and wants no uncommitted change
    engine.command(["git", "clone", "--quiet", REPOSITORY, checkout])
    options = ["--provenance=false", "--sbom=false"]  # Docker's default driver writes neither
    command = [checkout / "infra/images/build.sh", f"{registry}/ml", "cpu", *options]
    engine.command(command, seconds=BUILD_SECONDS, GKD_BUILD_OPTIONS=str(build_options))
    text = (checkout / "infra/kubernetes/overlays/prod/images/kustomization.yaml").read_text(encoding="utf-8")
    pins = {each["name"]: (each["newName"], each["digest"]) for each in yaml.safe_load(text)["images"]}
    assert set(pins) == {"gkd-service", "gkd-worker"}
    for name, (image, digest) in pins.items():
        assert image == f"{registry}/ml/{name}"
        accepted = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
        address = f"http://{registry}/v2/ml/{name}/manifests/{digest}"
        with urllib.request.urlopen(urllib.request.Request(address, headers={"Accept": accepted}), timeout=30) as answer:
            assert f"sha256:{hashlib.sha256(answer.read()).hexdigest()}" == digest
        engine.docker("image", "rm", f"{image}:{engine.command(['git', 'rev-parse', 'HEAD']).stdout.strip()}")
