"""What the nodes of a Ray cluster share with us, and how workers therefore get a stage's files and report progress."""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

from gkd_core.training.metrics import MetricsSink, file_sink


class Nodes(Protocol):
    """One way to share; it travels to each worker."""

    def storage(self, folder: Path) -> tuple[str, Any]:
        """Where Ray keeps the checkpoints of a run, by its folder: a path, and the file system that it is on (None: local)."""
        ...

    def prepare(self) -> None:
        """Called by each worker before it looks for a file of the stage."""
        ...

    def sink(self, folder: Path) -> MetricsSink:
        """Where the first worker writes step metrics."""
        ...

    def finish(self, folder: Path) -> None:
        """Called by each worker at its end: what it noted of its costs in its run folder must reach us."""
        ...


class SharedFolders:
    """Every node sees our own folders, at their own paths: one machine, or a network disk."""

    def storage(self, folder: Path) -> tuple[str, Any]:
        return str(folder), None

    def prepare(self) -> None:
        """Nothing: all is there."""

    def sink(self, folder: Path) -> MetricsSink:
        return file_sink(folder)

    def finish(self, folder: Path) -> None:
        """Nothing: it has."""


nodes: ContextVar[Nodes] = ContextVar("nodes", default=SharedFolders())  # noqa: B039  # it has no state
