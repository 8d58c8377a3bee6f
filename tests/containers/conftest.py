"""An engine of containers and the project's images: make test-containers.

Each file of this folder says `pytestmark = MARKS`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.containers.engine import REPOSITORY, Engine, EngineError

BUILD_SECONDS = 3000  # on two cores that another test run shares
MARKS = [pytest.mark.containers, pytest.mark.timeout(BUILD_SECONDS + 600)]
# Stands in every file that goes into a build as a secret, so that it can be looked for in what came out.
MARK = "gkd-test-a-secret-of-the-build"


@dataclass(frozen=True)
class Images:
    """Names of the built images, as compose.yaml takes them."""

    service: str
    worker: str


@pytest.fixture(scope="session")
def engine() -> Engine:
    try:
        return Engine.found()
    except EngineError as error:
        pytest.skip(str(error))


def first_file(*paths: str) -> str:
    """The text of the first of these files that there is."""
    found = next((path for path in map(Path, paths) if path.is_file()), None)
    return found.read_text(encoding="utf-8") if found else ""


@pytest.fixture(scope="session")
def build_options(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file for GKD_BUILD_OPTIONS: this machine's mirrors and certificates as secrets, the base image, torch for the CPU."""
    folder = tmp_path_factory.mktemp("secrets")
    home = Path.home()
    sources = ["Types: deb", f"URIs: {engine.environment['GKD_TEST_MIRROR']}", "Suites: bookworm", "Components: main",
               "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg"]  # fmt: skip
    secrets = {
        "pip": first_file(os.environ.get("PIP_CONFIG_FILE", ""), "/etc/pip.conf", f"{home}/.config/pip/pip.conf"),
        "uv": first_file(os.environ.get("UV_CONFIG_FILE", ""), f"{home}/.config/uv/uv.toml", "/etc/uv/uv.toml"),
        "authorities": first_file(os.environ.get("SSL_CERT_FILE", ""), "/etc/ssl/certs/ca-certificates.crt"),
        "apt-sources": "\n".join(sources),
    }
    options = ["--network=host", f"--build-arg=PYTHON_IMAGE={engine.environment['GKD_TEST_PYTHON_IMAGE']}"]
    for name, text in secrets.items():
        if text or name != "authorities":
            (folder / name).write_text(f"# {MARK}\n{text}\n", encoding="utf-8")
            options.append(f"--secret=id={name},src={folder / name}")
    wheels = Path(engine.environment["GKD_TEST_TORCH_WHEELS"])
    if wheels.is_dir():
        options.append(f"--build-context=torch-wheels={wheels}")
    path = folder / "options"
    path.write_text("\n".join(options) + "\n", encoding="utf-8")
    return path


def build(engine: Engine, build_options: Path, target: str) -> str:
    """An image of the Dockerfile, as build.sh builds it for one host, under a name of the tests."""
    name = f"gkd-test-{target}:latest"
    revision = engine.command(["git", "rev-parse", "HEAD"]).stdout.strip()
    arguments = ["--file", "infra/images/Dockerfile", "--build-arg", "TORCH=cpu", "--build-arg", f"REVISION={revision}"]
    arguments += ["--target", target, "--tag", name, "--load", *build_options.read_text(encoding="utf-8").split("\n")[:-1]]
    engine.docker("buildx", "build", *arguments, ".", seconds=BUILD_SECONDS)
    return name


@pytest.fixture(scope="session")
def service_image(engine: Engine, build_options: Path) -> str:
    return build(engine, build_options, "service")


@pytest.fixture(scope="session")
def worker_image(engine: Engine, build_options: Path) -> str:
    return build(engine, build_options, "worker")


@pytest.fixture(scope="session")
def images(service_image: str, worker_image: str) -> Images:
    return Images(service_image, worker_image)


@pytest.fixture(scope="session")
def stand_ins(engine: Engine, build_options: Path) -> dict[str, str]:
    """Images in the place of those that only a registry has, by the name that the manifests have for them."""
    (moto,) = re.findall(r"^moto==(\S+)", (REPOSITORY / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    folder = Path(__file__).parent / "stand_ins"
    words = [*build_options.read_text(encoding="utf-8").split("\n")[:-1], f"--build-arg=MOTO={moto}"]
    for target in ("postgres", "store"):
        names = [f"--target={target}", f"--tag=gkd-test-{target}:latest"]
        engine.docker("buildx", "build", *names, "--load", *words, str(folder), seconds=1200)
    return {"postgres": "gkd-test-postgres:latest", "seaweedfs": "gkd-test-store:latest"}


@pytest.fixture
def scratch_image(engine: Engine, tmp_path: Path) -> Iterator[str]:
    """A name for an image of one test, which is removed after it."""
    name = f"gkd-test-scratch:{tmp_path.name.lower()[:100]}"
    yield name
    engine.docker("image", "rm", "--force", name, check=False)
