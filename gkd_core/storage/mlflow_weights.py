"""Weights by their MLflow address: the safetensors stored next to a logged segmentor, as a file on this machine."""

from __future__ import annotations

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported

import hashlib
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import mlflow.artifacts
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from gkd_core.errors import WeightsError
from gkd_core.files import atomic_folder
from gkd_core.messages import one_line
from gkd_core.records import MANIFEST, SegmentorCheckpoint, sha256_of
from gkd_core.settings.encoder import FILE_SUFFIXES
from gkd_core.storage.model_files import LOG_AGAIN, check_content, recorded, require_record

CHECKPOINT = "checkpoint"  # folder beside a logged model: safetensors and manifest as the stage wrote them
MODEL = re.compile(r"models:/(?P<id>m-[^/@]+)|models:/(?P<name>[^/@]+)(/(?P<version>\d+)|@(?P<alias>[^/@]+))")
RUN = re.compile(r"runs:/(?P<run>[^/]+)/(?P<path>.+)")


def fetch_weights(uri: str, address: str, folder: Path) -> Path:
    """Bring the weights of an MLflow address to `folder`, and give their path there.

    `models:/NAME/VERSION`, `models:/NAME@ALIAS`, `models:/m-ID` and `runs:/RUN/MODEL` name a segmentor that `log_segmentor`
    logged; `runs:/RUN/PATH` with the suffix of a weights file names that artifact. The file is called by its digest, so
    that an alias that has moved on is another file; what is there already is not fetched again.

    Raises:
        WeightsError: the address is none of these, nothing lies there, or its content is not what its manifest describes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        location, digests = _location(MlflowClient(address), uri)
        if location.endswith(FILE_SUFFIXES):
            return _fetch_file(location, address, folder, hashlib.sha256(location.encode()).hexdigest(), None)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            record = _record(_download(f"{location}/{CHECKPOINT}/{MANIFEST}", address, temporary), digests, uri)
        return _fetch_file(f"{location}/{CHECKPOINT}/{record.weights}", address, folder, record.sha256, record.sha256)
    except (MlflowException, OSError) as error:
        reason = one_line(error)
        raise WeightsError(f"{uri}: no weights at this address of {address} ({reason}); see the Models page of MLflow") from None


def fetch_segmentor(uri: str, address: str, folder: Path) -> Path:
    """Bring a logged segmentor, by its MLflow address, to a folder of its own below `folder`: its manifest and its weights.

    Raises:
        WeightsError: there is no segmentor at the address, or its content is not what its manifest describes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        location, digests = _location(MlflowClient(address), uri)
        if location.endswith(FILE_SUFFIXES):
            raise WeightsError(f"{uri}: is a file of weights; expected a model, which has its manifest with it")
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            manifest = _download(f"{location}/{CHECKPOINT}/{MANIFEST}", address, temporary)
            record = _record(manifest, digests, uri)
            weights = _fetch_file(f"{location}/{CHECKPOINT}/{record.weights}", address, folder, record.sha256, record.sha256)
            target = folder / sha256_of(manifest)
            if not target.is_dir():  # another process may read it just now
                with atomic_folder(target) as unfinished:
                    shutil.copyfile(manifest, unfinished / MANIFEST)
                    os.link(weights, unfinished / record.weights)
    except (MlflowException, OSError) as error:
        reason = one_line(error)
        raise WeightsError(
            f"{uri}: no segmentor at this address of {address} ({reason}); see the Models page of MLflow"
        ) from None
    return target


def _record(manifest: Path, digests: Mapping[str, str] | None, uri: str) -> SegmentorCheckpoint:
    """The manifest of a model, once it is seen to be, and to describe, what was logged."""
    if digests is None:  # an artifact of a run that is no logged model: its path was given by who asks
        return SegmentorCheckpoint.read(manifest)
    require_record(digests, uri)
    check_content(manifest.read_bytes(), f"{CHECKPOINT}/{MANIFEST}", digests, uri)
    record = SegmentorCheckpoint.read(manifest)
    if digests.get(f"{CHECKPOINT}/{record.weights}") != record.sha256:
        raise WeightsError(f"{uri}: its weights are not those that were logged; {LOG_AGAIN}")
    return record


def _location(client: MlflowClient, uri: str) -> tuple[str, dict[str, str] | None]:
    """The artifact folder of a model with the recorded digests of its files, or the artifact itself where the address names a
    file; None where nothing is recorded of such."""
    if found := MODEL.fullmatch(uri):
        model_id = found["id"]
        if model_id is None:
            by_alias = found["alias"] is not None
            version = (
                client.get_model_version_by_alias(found["name"], found["alias"])
                if by_alias
                else client.get_model_version(found["name"], found["version"])
            )
            if version.model_id is None or recorded(version.tags):
                return str(client.get_model_version_download_uri(version.name, version.version)), recorded(version.tags)
            model_id = version.model_id
        model = client.get_logged_model(model_id)
        return str(model.artifact_location), recorded(model.tags)
    if found := RUN.fullmatch(uri):
        run = client.get_run(found["run"])
        query = f"source_run_id = '{run.info.run_id}'"
        logged = client.search_logged_models([run.info.experiment_id], filter_string=query)
        named = [model for model in logged if model.name == found["path"]]
        if named:
            return str(named[0].artifact_location), recorded(named[0].tags)
        return f"{run.info.artifact_uri}/{found['path']}", None
    raise WeightsError(f"{uri}: expected models:/NAME/VERSION, models:/NAME@ALIAS, models:/m-ID or runs:/RUN/PATH")


def _fetch_file(location: str, address: str, folder: Path, name: str, sha256: str | None) -> Path:
    target = folder / f"{name}{Path(location).suffix}"
    if target.is_file():
        return target
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        file = _download(location, address, temporary)
        if sha256 is not None and sha256_of(file) != sha256:
            raise WeightsError(f"{location}: its content is not what the manifest beside it describes; log the model again")
        os.replace(file, target)
    return target


def _download(location: str, address: str, folder: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=location, dst_path=folder, tracking_uri=address))
