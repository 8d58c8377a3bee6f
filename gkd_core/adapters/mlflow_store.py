"""Where a project's own MLflow store lies: the same with a server before it and without."""

from __future__ import annotations

from pathlib import Path

from gkd_core.paths import ARTIFACTS

STORE = ARTIFACTS / "mlflow"


def local_database(project: Path) -> str:
    """Address of the project's SQLite file."""
    return f"sqlite:///{(project / STORE / 'mlflow.db').resolve()}"


def local_artifacts(project: Path) -> str:
    """Address of the folder that new experiments keep their files in."""
    return (project / STORE / "artifacts").resolve().as_uri()
