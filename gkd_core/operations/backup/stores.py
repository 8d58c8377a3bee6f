"""What there is to back up: the databases and files in which the platform here, or a cluster, keeps its records."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gkd_core.errors import PlatformError
from gkd_core.operations.backup.databases import Databases
from gkd_core.operations.backup.postgres import PostgresDatabases
from gkd_core.operations.backup.sqlite import SqliteDatabases
from gkd_core.operations.backup.trees import BucketTree, FileTree, FolderTree
from gkd_core.operations.postgres import VARIABLE
from gkd_core.storage.mlflow_store import STORE

ARTIFACT_FOLDER = STORE / "artifacts"


@dataclass(frozen=True)
class Stores:
    """Databases, and the files that their records name."""

    databases: Databases
    trees: tuple[FileTree, ...]

    def tree(self, address: str) -> FileTree:
        """The tree of an address.

        Raises:
            PlatformError: it is not among those that were named here.
        """
        for tree in self.trees:
            if tree.address == address:
                return tree
        here = ", ".join(tree.address for tree in self.trees)
        what = (
            f"name it by --bucket {address.removeprefix('s3://')}"
            if address.startswith("s3://")
            else "MLflow's records name its files by this path: restore in a checkout at the same place"
        )
        raise PlatformError(f"{address}: the backup has files of it, here is {here}; {what}")


def stores_of(project: Path, buckets: Sequence[str], environment: Mapping[str, str] = os.environ) -> Stores:
    """PostgreSQL where GKD_DATABASE_URL names its server, else the project's SQLite files; buckets where some are named, else the
    project's own folder of artifacts.

    Raises:
        PlatformError: the address is none.
    """
    address = environment.get(VARIABLE, "")
    databases: Databases = PostgresDatabases(address) if address else SqliteDatabases(project)
    if not buckets:
        return Stores(databases, (FolderTree(project / ARTIFACT_FOLDER),))
    from gkd_core.storage.client import connect

    client = connect()
    return Stores(databases, tuple(BucketTree(client, bucket) for bucket in buckets))
