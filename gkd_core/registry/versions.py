"""The registry of students in MLflow: versions of registered models, each with what is known of it."""

from __future__ import annotations

import os

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for each small file

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import mlflow.artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from gkd_core.errors import PlatformError, WeightsError
from gkd_core.messages import one_line
from gkd_core.records import Record
from gkd_core.registry.gate import Verdict
from gkd_core.registry.model_card import FILE, ModelFacts, render_card, summary_of
from gkd_core.stages.fingerprint import Fingerprint
from gkd_core.storage.mlflow_store import quoted
from gkd_core.storage.model_files import LOG_AGAIN, check_content, digests_of, recorded, tags_of

FACTS, FINGERPRINT, VERDICT = "facts.json", "fingerprint.json", "verdict.json"
DESCRIPTION_LIMIT = 5000  # characters that MLflow's databases keep
# The databases of MLflow keep no link from a version to its logged model.
MODEL_TAG = "model_id"
LINEAGE = "registered_model_meta"  # MLflow's note of the address by which a model was fetched; a store of files gets it too
# What is put beside a model's own files after it was logged.
UNSIGNED = (FACTS, FINGERPRINT, VERDICT, FILE, LINEAGE)
SHA256_TAG, RECIPE_TAG, VERDICT_TAG, JUDGED_TAG = "sha256", "recipe", "gate.decision", "gate.at"
Kind = TypeVar("Kind", bound=Record)


@dataclass(frozen=True)
class Student:
    """A student to be registered: its logged model, and what is known of it."""

    model_id: str
    run_id: str
    facts: ModelFacts
    fingerprint: Fingerprint


class Registry:
    """Registered models of one MLflow store."""

    def __init__(self, client: MlflowClient, address: str) -> None:
        self.client = client
        self.address = address

    def names(self, prefix: str) -> list[str]:
        """Registered models that are called `<prefix>-<source>`, in alphabetical order."""
        found = self.client.search_registered_models(f"name LIKE {quoted(prefix + '-%')}")
        return sorted(model.name for model in found)

    def is_registered(self, name: str) -> bool:
        """Whether there is a registered model of this name."""
        return bool(self.client.search_registered_models(f"name = {quoted(name)}"))

    def aliases(self, name: str) -> dict[str, str]:
        """Version by alias; empty where no such model is registered."""
        found = self.client.search_registered_models(f"name = {quoted(name)}")
        return {alias: str(version) for alias, version in found[0].aliases.items()} if found else {}

    def version(self, name: str, wanted: str) -> ModelVersion:
        """A version by number or alias.

        Raises:
            PlatformError: there is none.
        """
        number = wanted if wanted.isdigit() else self.aliases(name).get(wanted)
        try:
            if number is not None:
                return self.client.get_model_version(name, number)
        except MlflowException:
            pass  # said below, with what there is
        numbers = ", ".join(str(version.version) for version in self.versions(name)) or "none"
        aliases = ", ".join(f"@{alias}" for alias in self.aliases(name)) or "none"
        raise PlatformError(f"{name}: no version {wanted} in {self.address}; versions: {numbers}; aliases: {aliases}")

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions, the oldest first."""
        found = self.client.search_model_versions(f"name = {quoted(name)}")
        return sorted(found, key=lambda version: int(version.version))

    def add(self, student: Student) -> ModelVersion:
        """Register a student; one whose weights are registered already keeps its version, with what is known of it brought up
        to date. The digests of the model's files go from its log to the version.

        Raises:
            WeightsError: the model was logged without digests of its files.
        """
        name = student.facts.model
        logged = self.client.get_logged_model(student.model_id)
        files = tags_of(recorded(logged.tags))
        if not files:
            raise WeightsError(f"{student.model_id}: logged without digests of its files, as before this version; {LOG_AGAIN}")
        same = (item for item in self.versions(name) if item.tags.get(SHA256_TAG) == student.facts.sha256)
        # One that was logged by an older version, without what serves it, stays beside the one that was logged again.
        version = next((item for item in same if files.keys() <= item.tags.keys()), None)
        if version is None:
            if not self.is_registered(name):
                self.client.create_registered_model(name)
            location = str(logged.artifact_location)
            tags = {MODEL_TAG: student.model_id, **_tags(student), **files}
            version = self.client.create_model_version(name, location, student.run_id, tags, model_id=student.model_id)
        else:
            self.tag(name, str(version.version), _tags(student))
        number = str(version.version)
        self._write(version, {FACTS: student.facts, FINGERPRINT: student.fingerprint})
        judged = VERDICT_TAG in version.tags
        self.write_card(name, number, self._read(version, VERDICT, Verdict) if judged else None)
        return self.client.get_model_version(name, number)

    def tag(self, name: str, number: str, tags: Mapping[str, str]) -> None:
        """Put tags on a version."""
        for key, value in tags.items():
            self.client.set_model_version_tag(name, number, key, value)

    def model_id(self, version: ModelVersion) -> str:
        """The logged model of a version.

        Raises:
            PlatformError: the version was not registered by `add`.
        """
        if MODEL_TAG not in version.tags:
            raise PlatformError(
                f"{version.name} version {version.version}: registered by another program, so nothing is known of it; "
                "register the student's run: gkd registry register RUN_ID"
            )
        return str(version.tags[MODEL_TAG])

    def facts(self, version: ModelVersion) -> ModelFacts:
        """What is known of a version.

        Raises:
            PlatformError: it was not registered by `add`.
        """
        return self._read(version, FACTS, ModelFacts)

    def fingerprint(self, version: ModelVersion) -> Fingerprint:
        """The recipe and data that a version was made from; raises as `facts`."""
        return self._read(version, FINGERPRINT, Fingerprint)

    def note_verdict(self, name: str, number: str, verdict: Verdict) -> None:
        """Write down what the gate said of a version: a record, tags, and the card."""
        self._write(self.client.get_model_version(name, number), {VERDICT: verdict})
        self.write_card(name, number, verdict)
        self.tag(name, number, {VERDICT_TAG: verdict.decision, JUDGED_TAG: datetime.now(UTC).isoformat(timespec="seconds")})

    def write_card(self, name: str, number: str, verdict: Verdict | None) -> str:
        """Write the card as the version's description and as an artifact, with the verdict where there is one; returns it."""
        version = self.client.get_model_version(name, number)
        card = render_card(self.facts(version), verdict)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / FILE
            file.write_text(card, encoding="utf-8")
            self._put(version, Path(folder))
        self.client.update_model_version(name, number, summary_of(card, DESCRIPTION_LIMIT))
        return card

    def read_card(self, version: ModelVersion) -> str:
        """The whole card of a version; raises as `facts`."""
        with tempfile.TemporaryDirectory() as folder:
            return self._download(version, FILE, folder).read_text(encoding="utf-8")

    def _write(self, version: ModelVersion, records: Mapping[str, Record]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, record in records.items():
                record.write(Path(folder) / name)
            self._put(version, Path(folder))

    def _put(self, version: ModelVersion, folder: Path) -> None:
        """Put files beside a version's model, the digest of each on record with the version."""
        self.client.log_model_artifacts(self.model_id(version), str(folder))
        self.tag(version.name, str(version.version), tags_of(digests_of(folder)))

    def _read(self, version: ModelVersion, file: str, kind: type[Kind]) -> Kind:
        with tempfile.TemporaryDirectory() as folder:
            return kind.read(self._download(version, file, folder))

    def _download(self, version: ModelVersion, file: str, folder: str) -> Path:
        label = f"{version.name} version {version.version}"
        location = self.client.get_logged_model(self.model_id(version)).artifact_location
        try:
            path = mlflow.artifacts.download_artifacts(
                artifact_uri=f"{location}/{file}", dst_path=folder, tracking_uri=self.address
            )
        except (MlflowException, OSError) as error:
            reason = one_line(error)
            raise PlatformError(
                f"{label}: it has no {file} ({reason}); was it registered by another program? gkd registry register"
            ) from None
        # Versions from before digests were recorded have none of these records either.
        digests = recorded(self.client.get_model_version(version.name, version.version).tags)
        if digests:
            check_content(Path(path).read_bytes(), file, digests, label)
        return Path(path)


def _tags(student: Student) -> dict[str, str]:
    facts = student.facts
    own = next(entry for entry in facts.standing.seeds if entry.seed == facts.seed)
    targets = facts.standing.target_means()[facts.standing.seeds.index(own)]
    return {
        SHA256_TAG: facts.sha256,
        RECIPE_TAG: student.fingerprint.digest,
        "source": facts.source,
        "method": facts.method,
        "seed": str(facts.seed),
        "run_id": facts.mlflow_run,
        "flow_run": facts.flow_run,
        "miou.targets": f"{targets:.2f}",
        "miou.validation": f"{own.validation:.2f}",
        **{f"data.{use.reference}": use.digest for use in facts.data},
    }
