"""Any Python that people have today: which one `make` takes, and that the lock holds for each."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11.0", "3.12.1", "3.13.0", "3.14.0")
PLATFORM = {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux", "os_name": "posix",
            "implementation_name": "cpython", "platform_python_implementation": "CPython"}  # fmt: skip


def environment(version: str) -> dict[str, str]:
    return {**PLATFORM, "python_full_version": version, "python_version": version.rpartition(".")[0]}


def holds(requirement: Requirement, version: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**environment(version), "extra": ""})


def locked() -> list[Requirement]:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    return [Requirement(line.rstrip(" \\")) for line in text.splitlines() if re.match(r"[a-zA-Z0-9]", line)]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_lock_holds_one_version_of_each_package_for_each_python(version: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = [pin for pin in locked() if holds(pin, version)]
    assert not [name for name, count in Counter(canonicalize_name(pin.name) for pin in pins).items() if count > 1]
    found = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}
    wanted = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    for requirement in map(Requirement, wanted):
        if requirement.name != project["name"] and holds(requirement, version):
            assert requirement.specifier.contains(found[canonicalize_name(requirement.name)]), requirement


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The Makefile alone, and a folder of programs: whatever stands for Python is put there."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.txt", "requirements-uv.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("make", "sh", "git", "awk"):
        (programs / name).symlink_to(str(shutil.which(name)))
    return tmp_path


def python(project: Path, name: str, serves: bool) -> None:
    file = project / "programs" / name
    file.write_text(f"#!/bin/sh\nexit {int(not serves)}\n")
    file.chmod(0o755)


def make(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments], cwd=project, env={"PATH": str(project / "programs")}, capture_output=True, text=True, check=False
    )


def chosen(project: Path) -> str:
    (found,) = re.findall(r"^PYTHON :=(.*)$", make(project, "-pn", "help").stdout, re.MULTILINE)
    return str(found.strip())


def test_make_takes_the_first_python_that_serves(project: Path) -> None:
    python(project, "python3", serves=False)
    python(project, "python3.12", serves=True)
    assert chosen(project) == "python3.12"
    python(project, "python3", serves=True)
    assert chosen(project) == "python3"


@pytest.mark.parametrize("named", [[], ["PYTHON=python2"]], ids=["none serves", "the one named does not serve"])
def test_where_none_serves_one_line_says_which_would(project: Path, named: list[str]) -> None:
    for name in ("python3", "python3.13", "python2"):
        python(project, name, serves=False)
    done = make(project, *named, ".venv/.ready")
    said = [line for line in done.stderr.splitlines() if "***" not in line]
    assert done.returncode == 2 and len(said) == 1
    assert "no Python of 3.11 to 3.14" in said[0] and "make PYTHON=" in said[0]


def test_git_is_asked_for_by_name(project: Path) -> None:
    (project / "programs" / "git").unlink()
    python(project, "python3", serves=True)
    assert "git is missing; install it" in make(project, ".venv/.ready").stderr


@pytest.mark.parametrize("home", [None, "", "/dev/null/home", "own"])
def test_packages_are_installed_without_a_home(project: Path, tmp_path: Path, home: str | None) -> None:
    """uv ends where its cache cannot be written."""
    python(project, "python3", serves=True)
    for name in ("mkdir", "test"):
        (project / "programs" / name).symlink_to(str(shutil.which(name)))
    found = {} if home is None else {"HOME": str(tmp_path / home) if home == "own" else home}
    environment = {"PATH": str(project / "programs")} | found
    done = subprocess.run(["make", "-pn", "help"], cwd=project, env=environment, capture_output=True, text=True, check=False)
    caches = re.findall(r"^UV_CACHE_DIR :=(.*)$", done.stdout, re.MULTILINE)
    assert [cache.strip() for cache in caches] == ([] if home == "own" else [f"{project}/.venv/uv-cache"])


def test_the_test_itself_asks_what_the_makefile_asks() -> None:
    """The one-line program accepts this Python, and exactly the versions that the project does."""
    (program,) = re.findall(r"^SERVES := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    for version, serves in (((3, 10), False), ((3, 11), True), ((3, 14), True), ((3, 15), False)):
        code = program.replace("sys.version_info[:2]", str(version))
        assert (subprocess.run([sys.executable, "-c", code], check=False).returncode == 0) == serves
