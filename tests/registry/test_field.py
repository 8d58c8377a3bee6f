"""Images of the field against a registered student: by statistics that were put beside it, wherever its data are now."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from gkd_core.errors import DataError
from gkd_core.predict.pictures import read_picture
from gkd_core.registry import field as field_module
from gkd_core.registry.field import look_at_field, register_known
from gkd_core.registry.versions import KNOWN, KNOWN_RECORD, Registry
from gkd_core.settings import Settings
from gkd_core.settings.registry import FieldImagesSettings
from gkd_core.stages import Recipe, run_stage
from gkd_core.stages.facts import LEARN_TASK
from gkd_core.storage.model_files import digests_of, tags_of
from tests.predict.conftest import noise

SOURCE = "potsdam-rgb"


class Shelf:
    """What the registry keeps beside one version, in a folder."""

    address = "nowhere"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def version(self, name: str, number: str) -> Any:
        return SimpleNamespace(name=name, version=number, tags=tags_of(digests_of(self.folder)))

    def put(self, version: Any, folder: Path) -> None:
        shutil.copytree(folder, self.folder, dirs_exist_ok=True)

    def download(self, version: Any, file: str, folder: str) -> Path:
        return Path(shutil.copy(self.folder / file, folder))

    def read(self, version: Any, file: str, kind: Any) -> Any:
        return kind.read(self.folder / file)


@pytest.fixture
def asked(tiny_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that ask of `inbox`, and a finished student in the workspace, which is where its weights are fetched from."""
    data = tiny_settings.data.model_copy(update={"benchmarks": ("P2R",)})
    registry = tiny_settings.registry.model_copy(update={"field_images": FieldImagesSettings(folder="inbox", bound=1.5)})
    settings = tiny_settings.model_copy(update={"data": data, "registry": registry})
    recipe = Recipe.of(settings)
    for run in recipe.plan[: 1 + [run.stage for run in recipe.plan].index(LEARN_TASK.name)]:
        run_stage(recipe, run, tmp_path)
    monkeypatch.setattr(field_module, "fetch_segmentor", lambda *arguments: tmp_path / LEARN_TASK.output(SOURCE))
    return settings


@pytest.fixture
def shelf(asked: Settings, tmp_path: Path) -> Registry:
    shelf = cast(Registry, Shelf(tmp_path / "shelf"))
    register_known(shelf, shelf.version("m", "4"), Recipe.of(asked), tmp_path, SOURCE)
    return shelf


def inbox(project: Path, pictures: list[np.ndarray]) -> None:
    shutil.rmtree(project / "inbox", ignore_errors=True)
    (project / "inbox").mkdir()
    for index, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(project / "inbox" / f"{index}.png")


def test_the_source_s_own_images_are_near_and_noise_is_far_without_the_data(
    shelf: Registry, asked: Settings, tmp_path: Path
) -> None:
    images = sorted((tmp_path / "artifacts/data/potsdam/RGB/img_dir/val").iterdir())
    own = [read_picture(path).pixels for path in images]
    shutil.rmtree(tmp_path / "artifacts/data")
    inbox(tmp_path, own)
    near = look_at_field(shelf, "m", "4", asked, tmp_path)
    inbox(tmp_path, [noise(32, 32, seed) for seed in range(3)])
    far = look_at_field(shelf, "m", "4", asked, tmp_path)
    assert near is not None and far is not None
    assert (near.images, far.images, near.bound) == (2, 3, 1.5)
    assert near.median < far.median and not near.asks


def test_a_student_without_statistics_is_not_asked(asked: Settings, tmp_path: Path) -> None:
    empty = cast(Registry, Shelf(tmp_path / "empty"))
    inbox(tmp_path, [noise(32, 32)])
    assert look_at_field(empty, "m", "4", asked, tmp_path) is None
    plain = asked.model_copy(update={"registry": asked.registry.model_copy(update={"field_images": None})})
    register_known(empty, empty.version("m", "4"), Recipe.of(plain), tmp_path, SOURCE)
    assert not any((tmp_path / "empty").iterdir()), "where nothing is asked, nothing is computed"


def test_what_was_joined_is_a_part_of_its_own(asked: Settings, tmp_path: Path) -> None:
    inbox(tmp_path, [noise(32, 32, seed) for seed in range(10)])
    data = asked.data.model_copy(update={"field": "inbox"})
    shelf = Shelf(tmp_path / "shelf")
    registry = cast(Registry, shelf)
    register_known(registry, registry.version("m", "5"), Recipe.of(asked.model_copy(update={"data": data})), tmp_path, SOURCE)
    look = look_at_field(registry, "m", "5", asked, tmp_path)
    assert look is not None and not look.asks, "it knows them now"
    assert '"name": "field"' in (shelf.folder / KNOWN_RECORD).read_text() and (shelf.folder / KNOWN).is_file()


def test_a_damaged_image_is_named(shelf: Registry, asked: Settings, tmp_path: Path) -> None:
    inbox(tmp_path, [noise(32, 32)])
    (tmp_path / "inbox/broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png"):
        look_at_field(shelf, "m", "4", asked, tmp_path)
