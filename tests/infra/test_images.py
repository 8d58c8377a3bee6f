"""The images, as far as they can be held to something without an engine that builds them."""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from tests.test_layers import BLOCKED_IMPORT

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "infra" / "images"
# What reaches a network in a build, and the secrets by which it does behind a mirror.
REACHING = {
    "apt-get": ("apt-sources", "authorities"),
    "pip install": ("pip", "authorities"),
    "uv pip install": ("uv", "authorities"),
    "install-torch.sh": ("uv", "authorities"),
}
PINNED = re.compile(r"^\S+:(?P<version>\d+\.\d+\.\d+)-\S+@sha256:[0-9a-f]{64}$")


def instructions(text: str) -> list[tuple[str, str]]:
    """Instruction and arguments, comments left out and continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word.isupper()]


def breaches(text: str) -> list[str]:
    """What is wrong with a Dockerfile that no general linter asks for."""
    found, stages = [], set()
    arguments = dict(rest.split("=", 1) for word, rest in instructions(text) if word == "ARG" and "=" in rest)
    stage, users = "", {}
    for word, rest in instructions(text):
        if word == "FROM":
            image, _, stage = rest.partition(" AS ")
            resolved = re.sub(r"\$\{(\w+)\}", lambda match: arguments.get(match[1], ""), image)
            if resolved not in {*stages, "scratch"} and not PINNED.match(resolved):
                found.append(f"{stage}: {resolved} is not pinned by its digest")
            stages.add(stage)
        if word == "USER":
            users[stage] = rest
        if word in ("ARG", "ENV") and re.search(r"PASSWORD|TOKEN|SECRET|ACCESS_KEY", rest):
            found.append(f"{stage}: {word} with a secret")
        if word == "ADD":
            found.append(f"{stage}: ADD may fetch; use COPY")
        if word == "RUN":
            found += [f"{stage}: {tool} without the secret {secret}" for tool, secret in _lacking(rest)]
        if word == "COPY" and "--from" not in rest:
            found += [f"{stage}: {item} is kept from the builder" for item in _sources(rest) if not _is_sent(item)]
    found += [f"{name}: runs as {users.get(name, 'root')}" for name in ("service", "worker") if users.get(name) != "10001:10001"]
    return found


def _lacking(command: str) -> list[tuple[str, str]]:
    """Tools that reach a network in a RUN, each with a secret that it needs behind a mirror and that is not mounted."""
    if "--network=none" in command:
        return []
    used = [tool for tool in REACHING if re.search(rf"(?<!uv )\b{tool}\b", command)]
    return [(tool, secret) for tool in used for secret in REACHING[tool] if f"type=secret,id={secret},target=/" not in command]


def _sources(rest: str) -> list[str]:
    return [item for item in rest.split() if not item.startswith("--")][:-1]


def _is_sent(source: str) -> bool:
    """Whether .dockerignore, which keeps all and lets single paths through, lets a source through."""
    rules = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    return any(fnmatch.fnmatch(rule.removeprefix("!"), source) for rule in rules if rule.startswith("!"))


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (FOLDER / "Dockerfile").read_text(encoding="utf-8")


def test_nothing_breaks_a_rule(dockerfile: str) -> None:
    assert breaches(dockerfile) == []


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (r"@sha256:[0-9a-f]{64}", "", "is not pinned by its digest"),
        (r"USER 10001:10001", "USER root", "runs as root"),
        (r"ARG UV_VERSION", "ARG PYPI_TOKEN=x\nARG UV_VERSION", "ARG with a secret"),
        (r"COPY gkd_core gkd_core", "COPY shared gkd_core", "shared is kept from the builder"),
        (r"id=apt-sources", "id=other", "base: apt-get without the secret apt-sources"),
        (r"id=apt-sources", "id=other", "worker: apt-get without the secret apt-sources"),
        (r"id=authorities", "id=other", "install-service: uv pip install without the secret authorities"),
        (r"--network=none", "--network=default", "install-worker: uv pip install without the secret uv"),
        (r"id=pip", "id=other", "install: pip install without the secret pip"),
        (r"id=uv", "id=other", "install-torch: install-torch.sh without the secret uv"),
    ],
)
def test_damage_is_seen(old: str, new: str, line: str, dockerfile: str) -> None:
    assert any(line in item for item in breaches(re.sub(old, new, dockerfile)))


def test_the_linter_of_dockerfiles_is_content(dockerfile: str) -> None:
    linter = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if linter is None:
        pytest.skip("hadolint has no build for this machine")

    def lint(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([linter, "-"], input=text, capture_output=True, text=True, check=False)

    assert lint(dockerfile).stdout == ""
    assert "DL3002" in lint(dockerfile.replace("USER 10001:10001", "USER root")).stdout


def test_copied_files_are_there(dockerfile: str) -> None:
    for word, rest in instructions(dockerfile):
        if word == "COPY" and "--from" not in rest:
            for source in _sources(rest):
                # prefect.tom[l] is a pattern: a file that may be absent.
                assert (REPOSITORY / source).exists() or "[" in source, source


def test_the_builder_gets_no_secret_no_data_and_no_history() -> None:
    sent = [rule[1:] for rule in (FOLDER / "Dockerfile.dockerignore").read_text().split() if rule.startswith("!")]
    assert not [path for path in sent if path.startswith((".git", "data", "artifacts", "shared", "infra/compose", ".env"))]
    rules = [line for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules[:1] == ["*"]


def test_the_base_has_a_python_that_the_project_allows(dockerfile: str) -> None:
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(.*)$", dockerfile, re.MULTILINE)
    match = PINNED.match(base)
    assert match is not None
    version = tuple(int(part) for part in match["version"].split("."))
    allowed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["requires-python"]
    assert allowed == ">=3.11,<3.15"
    assert (3, 11) <= version < (3, 15)


def test_what_the_service_image_has_is_pinned() -> None:
    pins = {re.split(r"==| ", line)[0] for line in (REPOSITORY / "requirements.txt").read_text().splitlines()}
    for file in ("service.txt", "service-without.txt"):
        wanted = [line for line in (FOLDER / file).read_text().splitlines() if line and not line.startswith("#")]
        assert {re.split(r"\[", line)[0] for line in wanted} <= pins
    assert "flask-wtf" in pins  # of mlflow[auth]


def test_the_service_image_needs_no_torch() -> None:
    modules = [
        "gkd_core.cli.app",
        "gkd_core.cli.infra",
        "gkd_core.operations.bootstrap.stores",
        "gkd_core.operations.bootstrap.tracking_user",
    ]
    code = BLOCKED_IMPORT.format(blocked=("torch", "timm", "ray", "dvc", "transformers", "PIL", "scipy"), modules=modules)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-2000:]


def run_entrypoint(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "SECRET_ENVIRONMENT": str(folder)}
    return subprocess.run(
        ["sh", FOLDER / "entrypoint.sh", *command], env=environment, capture_output=True, text=True, check=False
    )


def test_the_entry_point_gives_a_command_its_secrets(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "PGPASSWORD").write_text("two words $HOME `id`\n")
    (tmp_path / "PGPASSWORD").symlink_to("..data/PGPASSWORD")  # as Kubernetes mounts a secret
    done = run_entrypoint(tmp_path, "sh", "-c", 'printf %s "$PGPASSWORD"; exit 3')
    assert (done.returncode, done.stdout) == (3, "two words $HOME `id`")
    assert run_entrypoint(tmp_path / "none", "echo", "well").stdout == "well\n"


@pytest.mark.parametrize(("name", "text", "message"), [("A-B", "x", "not the name"), ("PGPASSWORD", "\n", "empty; expected")])
def test_the_entry_point_refuses_what_is_no_secret(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    done = run_entrypoint(tmp_path, "echo", "started")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_the_project_is_laid_out_anew_and_results_stay(tmp_path: Path) -> None:
    source, target = tmp_path / "image", tmp_path / "volume"
    for path, text in {"flows/pipeline.py": "new", "params.yaml": "new", ".dvc/config": "new"}.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text)
    for path, text in {"flows/gone.py": "old", "params.yaml": "old", "artifacts/run": "kept", ".dvc/cache/x": "kept"}.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_text(text)
    for _ in range(2):
        subprocess.run(["sh", FOLDER / "lay-out-project.sh", source, target], check=True)
        found = {str(path.relative_to(target)): path.read_text() for path in target.rglob("*") if path.is_file()}
        assert found == {
            "flows/pipeline.py": "new", "params.yaml": "new", ".dvc/config": "new",
            "artifacts/run": "kept", ".dvc/cache/x": "kept",
        }  # fmt: skip


@pytest.mark.parametrize("script", ["secrets.sh", "bootstrap.sh", "kubernetes/secrets.sh", "images/build.sh"])
def test_scripts_are_commands(script: str) -> None:
    path = REPOSITORY / "infra" / script
    assert os.access(path, os.X_OK)
    shell = "bash" if "bash" in path.read_text().splitlines()[0] else "sh"
    assert subprocess.run([shell, "-n", path], check=False).returncode == 0


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of programs that stand for real ones: each notes how it was called, and does what its text says."""
    folder = tmp_path / "programs"
    folder.mkdir()
    return folder


def stand_in(folder: Path, name: str, does: str = "") -> None:
    (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> "{folder}/calls"\n{does}\n')
    (folder / name).chmod(0o755)


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def build(programs: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """build.sh of this checkout with a docker of the test."""
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", **variables}
    return subprocess.run(
        [FOLDER / "build.sh", *arguments], env=environment, capture_output=True, text=True, check=False, cwd=programs
    )


@pytest.mark.parametrize(
    ("docker", "message"),
    [
        ('[ "$1" != buildx ]', "this docker has no BuildKit (docker buildx); install its plugin"),
        ('[ "$1" != version ]', "no engine answers at unix:///nowhere; start it"),
    ],
)
def test_the_script_looks_for_buildkit_and_an_engine_before_it_builds(docker: str, message: str, programs: Path) -> None:
    stand_in(programs, "docker", docker)
    done = build(programs, "local", "cpu", DOCKER_HOST="unix:///nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith(f"build.sh: {message}")
    assert done.stderr.count("\n") == 1
    assert not [line for line in calls(programs) if "buildx build" in line]


def test_the_script_refuses_an_unknown_torch_and_a_file_of_options_that_is_not_there(programs: Path) -> None:
    stand_in(programs, "docker")
    assert build(programs, "local", "rocm").stderr == "build.sh: torch: given rocm; allowed: cpu, cuda\n"
    assert "GKD_BUILD_OPTIONS: none: no file; expected" in build(programs, "local", GKD_BUILD_OPTIONS="none").stderr
    assert not [line for line in calls(programs) if "buildx build" in line]


def test_the_script_hands_options_on_for_one_host(programs: Path, tmp_path: Path) -> None:
    stand_in(programs, "docker")
    (tmp_path / "options").write_text("--network=host\n\n--secret=id=pip,src=/etc/with space\n")
    done = build(programs, "local", "cpu", "--quiet", GKD_BUILD_OPTIONS=str(tmp_path / "options"))
    assert done.returncode == 0, done.stderr
    built = [line for line in calls(programs) if "buildx build" in line]
    assert [re.findall(r"--tag (\S+) --load", line) for line in built] == [["gkd-service:dev"], ["gkd-worker:dev"]]
    for line in built:
        assert "--build-arg TORCH=cpu" in line
        assert line.endswith("--load --quiet --network=host --secret=id=pip,src=/etc/with space .")


PINS = """\
numpy==2.4.6 \\
    --hash=sha256:aa
torch==2.14.1 \\
    --hash=sha256:bb \\
    --hash=sha256:cc
torchmetrics==1.9.0
torchvision==0.29.2 ; sys_platform == 'linux' \\
    --hash=sha256:dd
triton==3.8.0
"""


def install_torch(
    programs: Path, installed: str, wheels: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """install-torch.sh with a uv that installs nothing and lists what the test says."""
    stand_in(programs, "uv", f"[ \"$2\" = install ] || printf '{installed}'")
    (programs / "requirements.txt").write_text(PINS)
    (programs / "wheels").mkdir(exist_ok=True)
    for name in wheels:
        (programs / "wheels" / name).touch()
    return subprocess.run(
        ["bash", FOLDER / "install-torch.sh", "wheels"],
        env={"PATH": f"{programs}:{os.environ['PATH']}", **variables}, capture_output=True, text=True, check=False, cwd=programs,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "wheels", "wanted"),
    [
        ({"TORCH": "cuda"}, (), "--constraints requirements.txt torch torchvision"),
        ({"TORCH": "cpu"}, (), "--torch-backend cpu torch==2.14.1 torchvision==0.29.2"),
        ({"TORCH": "cpu", "TORCH_INDEX": "http://x/cpu"}, (), "--index http://x/cpu torch==2.14.1 torchvision==0.29.2"),
        ({"TORCH": "cpu"}, ("torch-2.13.0+cpu-a.whl", "torchvision-0.28.0-a.whl"),
         "wheels/torch-2.13.0+cpu-a.whl wheels/torchvision-0.28.0-a.whl"),
    ],
)  # fmt: skip
def test_torch_comes_from_where_it_is_said_to(
    variables: dict[str, str], wheels: tuple[str, ...], wanted: str, programs: Path
) -> None:
    done = install_torch(programs, "torch==2.14.1\ntorchvision==0.29.2\n", wheels, **variables)
    assert done.returncode == 0, done.stderr
    assert calls(programs)[0] == f"uv pip install --no-deps {wanted}"
    assert (programs / "pins.txt").read_text() == PINS


def test_another_torch_than_the_pinned_one_is_what_the_rest_is_resolved_for(programs: Path) -> None:
    done = install_torch(programs, "numpy==1\ntorch==2.13.0+cpu\ntorchvision==0.28.0\n", TORCH="cpu")
    assert done.returncode == 0, done.stderr
    assert (programs / "pins.txt").read_text().splitlines() == [
        "numpy==2.4.6 \\", "    --hash=sha256:aa", "torchmetrics==1.9.0", "triton==3.8.0",
        "torch==2.13.0+cpu", "torchvision==0.28.0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "wheels", "message"),
    [
        ({"TORCH": "rocm"}, (), "TORCH: given rocm; allowed: cpu, cuda"),
        ({"TORCH": "cuda", "TORCH_INDEX": "http://x"}, (), "TORCH_INDEX: given for TORCH=cuda, which is PyPI's torch"),
        ({"TORCH": "cpu"}, ("torch-1-a.whl",), "wheels: given wheels/torch-1-a.whl; expected a wheel of torch and one of"),
    ],
)
def test_a_torch_that_cannot_be_is_refused(
    variables: dict[str, str], wheels: tuple[str, ...], message: str, programs: Path
) -> None:
    done = install_torch(programs, "", wheels, **variables)
    assert done.returncode == 2
    assert message in done.stderr
    assert calls(programs) == []


def test_trimming_takes_tests_and_leaves_programs(tmp_path: Path) -> None:
    packages = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
    gone = ["pandas/tests/a.py", "scipy/stats/tests/b.py", "torch/test/c", "torch/bin/test_api", "ray/jars/d.jar",
            "pyarrow/libarrow_flight.so.2500", "pyarrow/tests/nested/tests/e.py"]  # fmt: skip
    kept = ["pandas/core/a.py", "torch/bin/torch_shm_manager", "torch/testing/b.py", "prefect/tests/c.py",
            "pyarrow/libarrow_substrait.so.2500", "ray/core/d", "scipy/tests.py"]  # fmt: skip
    for name in (*gone, *kept):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text("x" * 100_000)
    done = subprocess.run([sys.executable, FOLDER / "trim.py", tmp_path / "venv"], capture_output=True, text=True, check=True)
    assert {str(path.relative_to(packages)) for path in packages.rglob("*") if path.is_file()} == set(kept)
    assert done.stdout == "trim.py: 7 files and folders removed, 1 MB\n"


@pytest.fixture
def compiling() -> Any:
    """The module compile.py."""
    spec = importlib.util.spec_from_file_location("compile_in_image", FOLDER / "compile.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_package_is_found_where_another_took_its_name(compiling: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Path(psutil.__file__).parent
    monkeypatch.setitem(sys.modules, "psutil", ModuleType("psutil"))  # as Ray does with its copy
    assert compiling.location("psutil") == own
    with pytest.raises(SystemExit, match="compile.py: no_such: no package"):
        compiling.location("no_such")


def test_what_a_file_imports_is_found_in_its_functions_too(compiling: Any, tmp_path: Path) -> None:
    module = compiling
    source = tmp_path / "source.py"
    source.write_text("import a.b, c\nfrom . import own\ndef f():\n    from d.e import x, y\n    import g as h\n")
    assert list(module.imported_by(source)) == [("a.b", None), ("c", None), ("d.e", "x"), ("d.e", "y"), ("g", None)]
    absent: set[str] = set()
    module.bring_in("json.tool", None, absent)
    module.bring_in("no_such_package.part", "x", absent)
    assert absent == {"no_such_package"}
