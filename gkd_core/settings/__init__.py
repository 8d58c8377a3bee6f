"""The settings tree: every number of the recipe, one section a stage.

`params.yaml` is this tree written out, so that DVC can track it. Where a default has a source in the paper
or the authors' release, the field says so; profiles overlay these defaults.
"""

from gkd_core.settings.base import Section
from gkd_core.settings.changes import Changes, ProfileName, SettingsChanges
from gkd_core.settings.data import DataSettings, StreamingSettings, WorldSettings
from gkd_core.settings.distill import DistillSettings, DistillSourceSettings, Precision, WarmStartSettings
from gkd_core.settings.encoder import EncoderSettings
from gkd_core.settings.evaluate import EvaluateSettings
from gkd_core.settings.illustrate import IllustrateSettings, PictureKind
from gkd_core.settings.machine import ComputeSettings, TrackingSettings
from gkd_core.settings.reading import (
    PROFILES,
    dump_settings,
    load_settings,
    profile_names,
    read_yaml_mapping,
    settings_from_tree,
)
from gkd_core.settings.registry import RegistrySettings
from gkd_core.settings.task import FeatureNorm, LearnTaskSettings, Mask2FormerSettings
from gkd_core.settings.tree import MethodName, Settings

__all__ = [
    "PROFILES",
    "Changes",
    "ComputeSettings",
    "DataSettings",
    "DistillSettings",
    "DistillSourceSettings",
    "EncoderSettings",
    "EvaluateSettings",
    "FeatureNorm",
    "IllustrateSettings",
    "LearnTaskSettings",
    "Mask2FormerSettings",
    "MethodName",
    "PictureKind",
    "Precision",
    "ProfileName",
    "RegistrySettings",
    "Section",
    "Settings",
    "SettingsChanges",
    "StreamingSettings",
    "TrackingSettings",
    "WarmStartSettings",
    "WorldSettings",
    "dump_settings",
    "load_settings",
    "profile_names",
    "read_yaml_mapping",
    "settings_from_tree",
]
