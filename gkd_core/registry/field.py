"""Whether images of the field are like those that a student knows, by statistics that are registered with it.

They are made where the student is registered, as its data are at hand there: a look needs neither its data nor its workspace.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from mlflow.entities.model_registry import ModelVersion

from gkd_core.data.files.blobs import DataFile
from gkd_core.data.files.folders import field_images
from gkd_core.models.segmentor import load_segmentor
from gkd_core.paths import RUNS
from gkd_core.predict.known import Known, KnownImages, read_known, write_known
from gkd_core.predict.manifest import View
from gkd_core.predict.pictures import picture_in
from gkd_core.predict.student import Segmentor
from gkd_core.records import Record
from gkd_core.registry.retraining import FieldLook
from gkd_core.registry.versions import KNOWN, KNOWN_RECORD, Registry
from gkd_core.settings import Settings
from gkd_core.stages.bundle import describe
from gkd_core.stages.facts import LEARN_TASK
from gkd_core.stages.known import known_images, spaced
from gkd_core.stages.machine import device_of
from gkd_core.stages.recipe import Recipe
from gkd_core.storage.mlflow_weights import fetch_segmentor
from gkd_core.storage.model_files import recorded
from gkd_core.training.progress import Advance, progress


class RegisteredKnown(Record):
    """What the statistics of a registered student are of, and how images were shown to it."""

    kind: Literal["registered-known"] = "registered-known"
    known: KnownImages
    view: View


def register_known(registry: Registry, version: ModelVersion, recipe: Recipe, workspace: Path, source: str) -> None:
    """Put the statistics of the images that a student knows beside its version, where `registry.field_images` asks for them.

    Args:
        recipe, workspace: of the finished run that made the student.

    Raises:
        DataError: an image is missing or damaged.
    """
    section = recipe.settings.registry.field_images
    if section is None:
        return
    student = _student(workspace / LEARN_TASK.output(source), recipe, workspace)
    known = known_images(
        student, recipe, workspace, section.known_images, lambda images: progress("known images", images, unit="images")
    )
    with tempfile.TemporaryDirectory() as folder:
        write_known(known, Path(folder) / KNOWN)
        RegisteredKnown(known=known.record(), view=student.bundle.view).write(Path(folder) / KNOWN_RECORD)
        registry.put(version, Path(folder))


def look_at_field(registry: Registry, name: str, number: str, settings: Settings, project: Path) -> FieldLook | None:
    """How far the images of `registry.field_images` are from what a registered student knows; None where nothing is asked, or
    it was registered without statistics.

    Raises:
        DataError: the folder is not there or empty, or an image is damaged.
        GkdError: the student or its statistics are not what was registered.
    """
    section, version = settings.registry.field_images, registry.version(name, number)
    digests = recorded(version.tags)
    if section is None or KNOWN_RECORD not in digests:
        return None
    record = registry.read(version, KNOWN_RECORD, RegisteredKnown)
    files = spaced(field_images(project / section.folder), section.known_images)
    folder = fetch_segmentor(f"models:/{name}/{number}", registry.address, (project / RUNS).resolve() / "weights")
    student = _student(folder, Recipe.of(settings), project, record.view)
    with tempfile.TemporaryDirectory() as temporary:
        path = registry.download(version, KNOWN, temporary)
        known = read_known(path, record.known, digests[KNOWN], student.pooled_dim)
    with progress("field images", len(files), unit="images") as advance:
        distances = _nearest(student, known, files, advance)
    return FieldLook(statistics.median(distances), section.bound, len(distances))


def _nearest(student: Segmentor, known: Known, files: Sequence[DataFile], advance: Advance) -> list[float]:
    """How far each image is from the part that is nearest to it."""
    found = []
    for number, file in enumerate(files, start=1):
        found += known.nearest(student.pooled(picture_in(file)))
        advance(number)
    return found


def _student(folder: Path, recipe: Recipe, workspace: Path, view: View | None = None) -> Segmentor:
    """A segmentor's folder as a student in use, which sees images as the recipe says, or by another view."""
    settings, network = recipe.settings, load_segmentor(folder)
    torch.set_num_threads(settings.compute.threads)
    bundle = describe(folder, recipe, workspace)
    stated = bundle if view is None else bundle.model_copy(update={"view": view})
    return Segmentor(stated, network, torch.device(device_of(settings)))
