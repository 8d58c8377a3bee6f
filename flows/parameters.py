"""What the flows of a run's settings have in common: three parameters, and the one way in which they are put together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gkd_core.settings import Changes, Settings, load_settings

PARAMS = Path("params.yaml")


def settings_of(parameters: Mapping[str, Any]) -> Settings:
    """The settings that a flow run's parameters ask for: params.yaml or `profile`, then `settings`, then `overrides`.

    Args:
        parameters: of the flow run, as its function got them or as Prefect's server keeps them.

    Raises:
        SettingsError: they do not fit together; one line for each key.
    """
    changes = parameters.get("settings")
    tree = changes.tree() if isinstance(changes, Changes) else changes
    return load_settings(PARAMS, parameters.get("profile"), parameters.get("overrides") or (), tree)
