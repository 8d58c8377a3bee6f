"""A project with a toy recipe, whose stages are one-line programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from gkd_core.settings import Settings
from gkd_core.stages import Recipe, StageRun
from gkd_core.versioning.workspace import create_workspace


@dataclass(frozen=True)
class ToyRun(StageRun):
    """A stage run with a command of its own."""

    shell: str = ""

    @property
    def command(self) -> str:
        return self.shell


def toy(name: str, shell: str, *inputs: str) -> ToyRun:
    return ToyRun(name, None, tuple(map(Path, inputs)), ("seed",), Path("artifacts") / name, shell=shell)


TOYS = {
    run.name: run
    for run in (
        toy("make", "mkdir -p artifacts/make && echo made > artifacts/make/file"),
        toy("copy", "cp -r artifacts/make artifacts/copy && echo $GREETING > artifacts/copy/greeting", "artifacts/make"),
        toy("refuse", "exit 2", "artifacts/make"),
        toy("sleep", "sleep 1000", "artifacts/make"),
    )
}


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> dict[str, ToyRun]:
    """The toy recipe's stages by name, in place of the real plan."""
    monkeypatch.setattr(Recipe, "plan", tuple(TOYS.values()))
    return TOYS


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tmp_path / "project"


@pytest.fixture
def workspace(project: Path, toys: dict[str, ToyRun]) -> Path:
    """A workspace of the toy recipe."""
    return create_workspace(project, "first", Settings())
