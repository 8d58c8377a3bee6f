"""Names in MLflow that those who write and those who watch have in common."""

from __future__ import annotations

UPDATES, PLANNED = "progress/updates", "progress/planned"  # metrics of a stage that trains
CHAMPION, CHALLENGER = "champion", "challenger"  # aliases of a registered model
