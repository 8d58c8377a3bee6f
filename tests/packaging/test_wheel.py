"""The wheel alone: built from a copy of the sources, installed where this repository is on no path, used in an empty folder.

Nothing is fetched: setuptools and what gkd depends on are those of the tests' own environment, as folders on the path.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from gkd_core.versioning.project import PLACES

REPOSITORY = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "README.md", "gkd_core", "flows", "prefect.yaml", "prefect.toml", ".dvcignore", ".dvc/config")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tool in ("pip", "setuptools"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not in the tests' environment: no wheel can be built without network")
    checkout, wheels = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheels")
    for name in SOURCES:  # a copy, as setuptools leaves its build folder in the sources, and takes stale files from it
        (checkout / name).parent.mkdir(exist_ok=True)
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, checkout / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(REPOSITORY / name, checkout / name)
    offline = ("--no-deps", "--no-index", "--no-build-isolation")
    command = [sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", str(wheels), str(checkout)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = wheels.glob("gkd-*.whl")
    return built


@pytest.fixture(scope="module")
def home(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel installed; the packages that it needs are on its path, but no editable install."""
    folder = tmp_path_factory.mktemp("home") / "env"
    venv.create(folder, with_pip=False)
    python = str(folder / "bin/python")
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    # After the installation, for which this environment must be an empty one. Of a path in a .pth file, .pth files are not read.
    place = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                           capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    (Path(place) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty")


def run(home: Path, cwd: Path, *command: str, status: int = 0) -> str:
    """What a command of the environment says; its exit status must be this one."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PATH"] = f"{home / 'bin'}{os.pathsep}{environment['PATH']}"
    environment["COLUMNS"] = "200"
    done = subprocess.run(
        [str(home / "bin" / command[0]), *command[1:]], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def project(home: Path, empty: Path, tiny_tree: dict[str, Any]) -> Path:
    """A project laid out by the installed command, with tiny models, nothing to distil, and a world of a few images."""
    encoders = {role: tiny_tree[role] | {"weights": "random"} for role in ("teacher", "student")}
    tree = {key: value for key, value in tiny_tree.items() if key != "data"} | encoders
    world = {f"data.world.{key}": value for key, value in tiny_tree["data"]["world"].items()}
    chosen = tree | world | {"method": "no-kd", "data.benchmarks": ["P2R"]}
    settings = [f"{key}={json.dumps(value)}" for key, value in chosen.items()]  # JSON is YAML
    said = run(home, empty, "gkd", "new", "P", *(word for setting in settings for word in ("--set", setting)))
    assert "cd P" in said
    return empty / "P"


def test_the_wheel_has_what_is_read_at_run_time(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder in ("profiles", "data/catalog", "planning/clusters", "reports/templates", "models", "project"):
        data = [path for path in (REPOSITORY / "gkd_core" / folder).iterdir() if path.is_file() and path.suffix != ".py"]
        assert data and {f"gkd_core/{folder}/{path.name}" for path in data} <= names, folder
    assert {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "flows").rglob("*.py")} <= names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "studies", "infra"))]


def test_it_is_the_wheel_that_runs(home: Path, empty: Path) -> None:
    found = run(home, empty, "python", "-c", "import gkd_core, flows; print(gkd_core.__file__, flows.__file__)").split()
    assert all(Path(path).is_relative_to(home) for path in found)
    path = run(home, empty, "python", "-c", "import sys; print(sys.path, sys.meta_path)")
    assert str(REPOSITORY) + "'" not in path and "__editable__" not in path


def test_help(home: Path, empty: Path) -> None:
    said = run(home, empty, "gkd", "--help")
    assert "gkd new my-project" in said and "gkd data describe" in said


def test_new_lays_out_a_project_once(home: Path, empty: Path, project: Path) -> None:
    assert {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()} >= set(PLACES.values())
    before = (project / "params.yaml").read_bytes()
    run(home, empty, "gkd", "new", "P", status=2)
    assert (project / "params.yaml").read_bytes() == before


def test_a_run_in_the_project(home: Path, project: Path) -> None:
    run(home, project, "gkd", "run", "prepare-data")
    assert list((project / "artifacts/data/potsdam").rglob("*.png"))
    run(home, project, "gkd", "data", "verify", "potsdam-rgb/train")
    for stage in ("learn-task", "evaluate"):
        run(home, project, "gkd", "run", stage, "--source", "potsdam-rgb")
    run(home, project, "gkd", "run", "report")
    assert "potsdam" in run(home, project, "gkd", "show", "artifacts/report")
    assert "gkd run evaluate --source potsdam-rgb" in run(home, project, "python", "-m", "dvc", "repro", "--dry")
    assert "learn-task-potsdam-rgb" in run(home, project, "python", "-m", "dvc", "dag", "--dot")


def test_describe_then_verify_data_of_ones_own(home: Path, empty: Path, project: Path) -> None:
    noise = np.random.default_rng(0)
    for split in ("train", "val"):
        for index in range(3):
            for kind, values in (("images", noise.integers(0, 256, (32, 32, 3))), ("labels", np.full((32, 32), index))):
                place = empty / f"yard/{kind}/{split}/{index}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values.astype(np.uint8)).save(place)
    text = run(home, empty, "gkd", "data", "describe", "yard")
    (project / "catalog.yaml").write_text(text, encoding="utf-8")
    assert list(yaml.safe_load(text)["datasets"]["yard"]["splits"]) == ["train", "val"]
    said = run(home, project, "gkd", "data", "verify", "yard/train", "--set", "data.world=null", "--set", f"data.root={empty}")
    assert "yard/train: 3 images, 3 labels" in said
