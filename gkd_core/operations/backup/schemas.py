"""Which schemas of a database the installed services know: a backup of a newer one is refused before anything is touched."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from alembic.script import ScriptDirectory

from gkd_core.errors import PlatformError
from gkd_core.operations.backup.manifest import Dump
from gkd_core.operations.postgres import MLFLOW, MLFLOW_USERS, PREFECT

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
