"""Names in MLflow that those who write and those who watch have in common."""

from __future__ import annotations

from gkd_core.errors import PlatformError
from gkd_core.messages import shown

PARENT_TAG = "mlflow.parentRunId"
UPDATES, PLANNED = "progress/updates", "progress/planned"  # metrics of a stage that trains
CHAMPION, CHALLENGER = "champion", "challenger"  # aliases of a registered model


def quoted(text: str) -> str:
    """A string of MLflow's filter language, which has no escapes.

    Raises:
        PlatformError: it has both kinds of quotes, or is no text that a database keeps.
    """
    if "'" in text and '"' in text:
        raise PlatformError(f"{shown(text)}: a name with both kinds of quotes cannot be searched for; give the run's id")
    if not text.isprintable():  # halves of characters among them, which no database takes
        raise PlatformError(f"{shown(text)}: a name with such characters cannot be searched for; give the run's id")
    return f'"{text}"' if "'" in text else f"'{text}'"
