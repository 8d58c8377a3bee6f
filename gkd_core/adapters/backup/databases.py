"""What a backup needs of the databases, whichever server has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from gkd_core.adapters.backup.manifest import DatabaseKind, Dump


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

    def check_target(self, dumps: Sequence[Dump], replace: bool) -> None:
        """Raise `PlatformError` unless these can be put in place now: nobody uses them, and they are empty or give way."""

    def load(self, files: Mapping[Dump, Path]) -> None:
        """Put databases in place, each whole or not at all."""
