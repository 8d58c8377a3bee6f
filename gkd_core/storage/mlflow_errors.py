"""What MLflow raises, in one line that says which store and what to do."""

from __future__ import annotations

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

from gkd_core.errors import PlatformError, TransientError

# A server that does not answer, or that fails: MLflow has tried for minutes then. A refusal has a code of its own.
PASSING = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED")

DELETED = "must be in the 'active' state"  # what MLflow says of an experiment or a run that somebody deleted in its pages


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Raise what MLflow raises in the block as an error of ours.

    Raises:
        TransientError: the store at this address does not answer, or fails.
        PlatformError: it refuses.
    """
    try:
        yield
    except MlflowException as error:
        kind = TransientError if error.error_code in PASSING else PlatformError
        words = str(error).splitlines()[0]
        advice = (
            "restore it (mlflow experiments restore, mlflow runs restore)" if DELETED in words else "check MLFLOW_TRACKING_URI"
        )
        raise kind(f"MLflow at {address}: {words}; {advice}") from None
