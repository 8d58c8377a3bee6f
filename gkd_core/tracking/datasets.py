"""How a run's data is recorded in MLflow: each domain as a dataset input, known by the digest of the folder that it lies in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from mlflow.entities import Dataset, InputTag
from mlflow.entities import DatasetInput as DatasetInput  # what our callers keep between two calls

from gkd_core.errors import PlatformError
from gkd_core.stages import Recipe, StageRun
from gkd_core.stages.facts import PREPARE_DATA
from gkd_core.versioning.pins import Pin, PinnedInputs
from gkd_core.versioning.recipe import input_digests, output_digest

FOLDER_MARK = ".dir"  # ends DVC's digest of a folder; MLflow takes 36 characters at most
NOT_IN_A_KEY = re.compile(r"[^\w\-. /:]")  # what MLflow refuses in a tag's name


def version_tags(inputs: PinnedInputs) -> dict[str, str]:
    """A short tag for each input of a run: the digest and revision of its pin, or that it has none."""
    tags = {pin.path: _short(pin) for pin in inputs.pins} | dict.fromkeys(inputs.unpinned, "unpinned")
    return {f"data.{NOT_IN_A_KEY.sub('_', path)}": value for path, value in tags.items()}


def _short(pin: Pin) -> str:
    return f"{_digest(pin.md5)} (git {pin.revision[:10]})" if pin.revision else f"{_digest(pin.md5)} (not committed)"


def dataset_inputs(recipe: Recipe, run: StageRun, pinned: PinnedInputs, workspace: Path) -> list[DatasetInput]:
    """The domains that a stage reads, each with its part (proxy, source, validation, target).

    A pinned domain has the digest of its pin; any other that which DVC found for its folder when prepare-data ran.
    """
    prepare = recipe.find(PREPARE_DATA.name)
    found = {prepare.output.as_posix(): output_digest(workspace, prepare), **input_digests(workspace, prepare)}
    pins = {pin.path: pin for pin in pinned.pins}
    entries, origin = [], recipe.origin(Path())
    for reference, part in recipe.domains_read(run).items():
        paths = origin.inputs(recipe.catalog.domain(reference))
        pin = _holder(pins, paths)
        if pin is None:
            place, digest = _found(found, paths, reference)
            dataset = _unpinned(reference, place, digest)
        else:
            dataset = _pinned(reference, pin)
        tags = {"mlflow.data.context": part, "pinned": str(pin is not None).lower()}
        entries.append(DatasetInput(dataset, [InputTag(key, value) for key, value in tags.items()]))
    return entries


def _pinned(reference: str, pin: Pin) -> Dataset:
    facts = pin.model_dump(mode="json")
    source = pin.file if pin.revision is None else f"{pin.file}@{pin.revision}"
    return Dataset(reference, _digest(pin.md5), "dvc", source, profile=json.dumps(facts))


def _unpinned(reference: str, place: str, digest: str) -> Dataset:
    return Dataset(reference, _digest(digest), "local", place)


def _holder(pins: Mapping[str, Pin], paths: Iterable[Path]) -> Pin | None:
    """The pin of the folder, or of the first file, that a domain lies in."""
    return next((pins[name.as_posix()] for path in paths for name in (path, *path.parents) if name.as_posix() in pins), None)


def _found(digests: Mapping[str, str], paths: Iterable[Path], reference: str) -> tuple[str, str]:
    for path in paths:
        for name in (path, *path.parents):
            if name.as_posix() in digests:
                return name.as_posix(), digests[name.as_posix()]
    raise PlatformError(f"{reference}: none of its folders is an input of prepare-data in dvc.lock; run that stage again")


def _digest(md5: str) -> str:
    return md5.removesuffix(FOLDER_MARK)
