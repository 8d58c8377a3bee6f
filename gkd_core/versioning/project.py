"""A project of one's own, laid out by an installed gkd: what a folder needs so that `gkd`, `dvc` and `prefect` work in it.

The files that this repository has for itself are the same ones (`gkd_core/project/` links to them, a wheel holds copies).
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from gkd_core.data.catalog.load import load_catalog
from gkd_core.errors import GkdError
from gkd_core.files import new_folder
from gkd_core.messages import shown
from gkd_core.paths import PARAMS
from gkd_core.settings import Settings, dump_settings
from gkd_core.stages import Recipe
from gkd_core.versioning.recipe import render_plan

SHIPPED = resources.files("gkd_core") / "project"
CATALOG = "catalog.yaml"
# Where each shipped file lies in a project; a package holds no file whose name begins with a dot.
PLACES = {
    CATALOG: CATALOG,
    "README.md": "README.md",
    "gitignore": ".gitignore",
    "dvcignore": ".dvcignore",
    "dvc-config": ".dvc/config",
    "prefect.toml": "prefect.toml",
    "prefect.yaml": "prefect.yaml",
}
FLOW_FILE = re.compile(r"^(\s*entrypoint: )flows/(\w+)\.py:(\w+)$", re.MULTILINE)


def lay_out(folder: Path, settings: Settings) -> None:
    """Make a project in `folder`, a new or empty one; its recipe is these settings, with its own catalog beside theirs.

    Raises:
        GkdError: there is something in the folder, or the settings ask for no possible plan. Nothing is left behind.
    """
    _refuse_unless_free(folder)
    with_own = settings.model_copy(
        update={"data": settings.data.model_copy(update={"catalogs": (*settings.data.catalogs, f"./{CATALOG}")})}
    )
    # The catalog of its own is not there yet, and declares nothing.
    recipe = render_plan(Recipe(with_own, load_catalog(settings.data.catalogs)))
    try:
        with new_folder(folder) as project:
            for name, place in PLACES.items():
                (project / place).parent.mkdir(exist_ok=True)
                (project / place).write_text(_text_of(name), encoding="utf-8")
            (project / PARAMS).write_text(dump_settings(with_own), encoding="utf-8")
            (project / "dvc.yaml").write_text(recipe, encoding="utf-8")
    except OSError:
        _refuse_unless_free(folder)  # another was faster
        raise


def _refuse_unless_free(folder: Path) -> None:
    if folder == Path.cwd():
        raise GkdError(f"{shown(str(folder))}: is the folder that this runs in; name a new one")
    try:
        taken = any(folder.iterdir())
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise GkdError(f"{shown(str(folder))}: a file is there; name a new folder") from None
    if taken:
        raise GkdError(f"{shown(str(folder))}: is not empty, and nothing is overwritten; name a new folder")


def _text_of(name: str) -> str:
    text = (SHIPPED / name).read_text(encoding="utf-8")
    # The flows are in the package that is installed, not in the project.
    return FLOW_FILE.sub(r"\1flows.\2.\3", text)
