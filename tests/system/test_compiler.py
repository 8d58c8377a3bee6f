"""What torch.compile needs of a host is asked for before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gkd_core.errors import SettingsError
from gkd_core.system.compiler import check_compiler


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the host's whole PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    return tmp_path


def install(folder: Path, name: str) -> None:
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(("device", "names"), [("cpu", "g++"), ("cuda:1", "gcc or clang")])
def test_a_host_without_a_compiler_is_refused_in_a_line(device: str, names: str, programs: Path) -> None:
    with pytest.raises(SettingsError, match="^compile: ") as raised:
        check_compiler(device)
    assert f"for {device} needs a compiler, and this host has no {names}; set compile: false" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("device", "name", "serves"),
    [("cpu", "g++", True), ("cpu", "gcc", False), ("cuda", "gcc", True), ("cuda", "clang", True), ("cuda", "g++", False)],
)
def test_each_device_has_a_compiler_of_its_own(device: str, name: str, serves: bool, programs: Path) -> None:
    install(programs, name)
    if serves:
        check_compiler(device)
    else:
        with pytest.raises(SettingsError):
            check_compiler(device)


def test_a_compiler_of_choice_is_looked_for_alone(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(programs, "g++")
    monkeypatch.setenv("CXX", "my-g++ -pipe")
    with pytest.raises(SettingsError, match="has no my-g"):
        check_compiler("cpu")
    install(programs, "my-g++")
    check_compiler("cpu")
