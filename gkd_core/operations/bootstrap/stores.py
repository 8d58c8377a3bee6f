"""Sets up all stores of a cluster, one outcome a line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from gkd_core.operations.bootstrap.buckets import bootstrap_bucket
from gkd_core.operations.bootstrap.databases import OWNERS, bootstrap_databases
from gkd_core.operations.bootstrap.outcome import Outcome
from gkd_core.operations.postgres import VARIABLE
from gkd_core.storage.client import connect

BUCKETS = ("gkd-data", "gkd-mlflow", "gkd-backup")


def bootstrap_stores(buckets: Sequence[str], environment: Mapping[str, str] = os.environ) -> Iterator[Outcome]:
    """Databases, where GKD_DATABASE_URL names their server, then buckets, where the AWS variables say.

    Raises:
        GkdError: as `bootstrap_databases` and `bootstrap_bucket`. What was done before stays, and is found so the next time.
    """
    address = environment.get(VARIABLE, "")
    if address:
        yield from bootstrap_databases(address, OWNERS, environment)
    else:
        yield Outcome("databases", "left out", f"{VARIABLE} is unset")
    for bucket in buckets:
        for outcome in bootstrap_bucket(connect(), bucket):
            title = f"bucket {bucket}" if outcome.feature == "bucket" else f"bucket {bucket}: {outcome.feature}"
            yield Outcome(title, outcome.state, outcome.note)
