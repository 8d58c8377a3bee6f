"""What a backup needs of the databases, whichever server has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from gkd_core.errors import PlatformError
from gkd_core.operations.backup.manifest import DatabaseKind, Dump


class Databases(Protocol):
    """The databases of Prefect and MLflow."""

    kind: DatabaseKind

    def names(self) -> list[str]:
        """Those that are there, in the order of a backup.

        Raises:
            PlatformError: one that is needed is not there.
        """

    def dump(self, name: str, path: Path) -> tuple[str, int]:
        """Write one down as of one moment, while others use it; its schema's revision and the server's major version."""

    def check_target(self, dumps: Sequence[Dump]) -> list[Dump]:
        """Those of the databases that are not empty; raises `PlatformError` unless they are there and nobody uses them."""

    def holds(self, dump: Dump, file: Path) -> bool:
        """Whether a database has just the content of its dump, as a restore leaves it that was killed behind that one."""

    def not_empty(self, dump: Dump) -> PlatformError:
        """The error of a database that has something else, and is not to give way."""

    def load(self, files: Mapping[Dump, Path]) -> None:
        """Put databases in place, each whole or not at all; what a killed load has left beside any of them goes."""
