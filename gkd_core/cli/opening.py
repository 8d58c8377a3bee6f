"""How commands open the model that they are given: a bundle, the folder of a segmentor, an MLflow address."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gkd_core.cli.options import read_settings

if TYPE_CHECKING:
    from gkd_core.models.segmentor import Segmentor as Network
    from gkd_core.predict.manifest import Bundle


def open_student(model: str, profile: str | None, set_: list[str] | None) -> tuple[Bundle, Network]:
    """The student that a bundle, a folder or an address names, with what a bundle says of it, on the CPU.

    Settings are read for one that is no bundle: they say how it sees an image.

    Raises:
        GkdError: there is none, or it is damaged.
    """
    from gkd_core.predict.bundle import open_bundle
    from gkd_core.untrusted import given_path

    if is_bundle(model):
        return open_bundle(given_path(model))
    from gkd_core.models.segmentor import load_segmentor
    from gkd_core.stages.bundle import describe
    from gkd_core.stages.measure import segmentor_folder
    from gkd_core.stages.recipe import Recipe

    settings = read_settings(profile, set_)
    folder = segmentor_folder(model, settings, Path.cwd())
    network = load_segmentor(folder)
    return describe(folder, Recipe.of(settings), Path.cwd()), network


def is_bundle(model: str) -> bool:
    """Whether it is the folder of a bundle."""
    return kind_named(model) == "bundle"


def kind_named(model: str) -> str | None:
    """What the manifest of a folder says that it describes; None of another folder, and of an MLflow address."""
    from gkd_core.records import kind_of
    from gkd_core.settings.encoder import MLFLOW_SCHEMES
    from gkd_core.untrusted import given_path

    return None if model.startswith(MLFLOW_SCHEMES) else kind_of(given_path(model))
