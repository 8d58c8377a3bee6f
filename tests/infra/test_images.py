"""The images, as far as they can be held to something without an engine that builds them."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.test_layers import BLOCKED_IMPORT

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "infra" / "images"
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
            if resolved not in stages and not PINNED.match(resolved):
                found.append(f"{stage}: {resolved} is not pinned by its digest")
            stages.add(stage)
        if word == "USER":
            users[stage] = rest
        if word in ("ARG", "ENV") and re.search(r"PASSWORD|TOKEN|SECRET|ACCESS_KEY", rest):
            found.append(f"{stage}: {word} with a secret")
        if word == "ADD":
            found.append(f"{stage}: ADD may fetch; use COPY")
        if word == "COPY" and "--from" not in rest:
            found += [f"{stage}: {item} is kept from the builder" for item in _sources(rest) if not _is_sent(item)]
    found += [f"{name}: runs as {users.get(name, 'root')}" for name in ("service", "worker") if users.get(name) != "10001:10001"]
    return found


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
    assert allowed == ">=3.11,<3.13"
    assert (3, 11) <= version < (3, 13)


def test_what_the_service_image_has_is_pinned() -> None:
    pins = {re.split(r"==| ", line)[0] for line in (REPOSITORY / "requirements.txt").read_text().splitlines()}
    wanted = [line for line in (FOLDER / "service.txt").read_text().splitlines() if line and not line.startswith("#")]
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
