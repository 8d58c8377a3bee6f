"""The databases of a backup: their names, what a server must offer, and which schemas the installed services know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from alembic.script import ScriptDirectory

from gkd_core.errors import PlatformError
from gkd_core.operations.backup.manifest import DatabaseKind, Dump
from gkd_core.operations.postgres import MLFLOW, MLFLOW_USERS, PREFECT


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
        """The error of a database that has other content and must not be overwritten."""

    def load(self, files: Mapping[Dump, Path]) -> None:
        """Put databases in place, each whole or not at all; what a killed load has left beside any of them goes."""


# In the order of a backup: records that name others before those that they name, so that whatever is named is there.
DATABASES = (MLFLOW, MLFLOW_USERS, PREFECT)
VERSION_TABLES = {MLFLOW: "alembic_version", MLFLOW_USERS: "alembic_version_auth", PREFECT: "alembic_version"}
OWNERS = {MLFLOW: "mlflow", MLFLOW_USERS: "mlflow", PREFECT: "prefect"}
_PLACES = {
    MLFLOW: ("store/db_migrations", "store/db_migrations/versions"),
    MLFLOW_USERS: ("server/auth/db/migrations", "server/auth/db/migrations/versions"),
    PREFECT: ("server/database/_migrations", "server/database/_migrations/versions/{kind}"),
}


def check_known(dump: Dump, versions: dict[str, str]) -> None:
    """Raise `PlatformError` where the installed service does not know the schema of a dump: a newer one wrote it.

    Args:
        versions: of packages, as the backup has noted them.
    """
    package = OWNERS[dump.name]
    if dump.revision and dump.revision not in known_revisions(dump.name, dump.kind):
        raise PlatformError(
            f"{dump.name}: its schema {dump.revision} is unknown to the {package} installed here; the backup was made with "
            f"{package} {versions.get(package, 'of an unknown version')}: install that or a newer one, then restore"
        )


def known_revisions(database: str, kind: str) -> set[str]:
    """Every revision of a database's schema that the installed service can start from."""
    package = OWNERS[database]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise PlatformError(f"{package} is not installed here, so nothing knows the schema of {database}; install gkd[platform]")
    root, (scripts, revisions) = Path(spec.origin).parent, _PLACES[database]
    folder = ScriptDirectory(str(root / scripts), version_locations=[str(root / revisions.format(kind=kind))])
    return {revision.revision for revision in folder.walk_revisions()}
