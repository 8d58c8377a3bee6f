"""The readers of text as targets: YAML, JSON, settings, catalogs, records, pins, notes, backups, logs of jobs."""

from __future__ import annotations

import hashlib
import json
import os
import re
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np

from gkd_core.cluster.job_log import parse_error, parse_metrics, parse_result
from gkd_core.data.catalog import load as catalogs
from gkd_core.data.catalog.taxonomy import LabelEncoding, unknown_values
from gkd_core.documents import DocumentError, parse_json, read_text, read_yaml
from gkd_core.errors import DataError, GkdError, PlatformError, SettingsError, WeightsError
from gkd_core.operations.backup.backup_store import MANIFESTS, SEALS, BackupStore, FolderShelf
from gkd_core.operations.backup.manifest import Backup
from gkd_core.operations.backup.seal import check_seal
from gkd_core.planning.paces import read_paces
from gkd_core.predict.bundle import read_bundle
from gkd_core.predict.card import render_card
from gkd_core.predict.manifest import Bundle
from gkd_core.records import DataManifest, EncoderCheckpoint, PictureList, Record, ScoreTable, SegmentorCheckpoint
from gkd_core.settings import dump_settings, load_settings
from gkd_core.storage.model_files import FILE_TAG, check_files, digests_of, recorded
from gkd_core.system import platform_state
from gkd_core.system.server_keys import OWNER_ALONE, read_keys
from gkd_core.training.cost import FOLDER as COSTS
from gkd_core.training.cost import read_cost
from gkd_core.training.metrics import FILE as METRICS
from gkd_core.versioning.pins import PinnedInputs, pins_of, read_pin
from tests.security.fuzz.harness import Target
from tests.security.fuzz.readers import each_of, put

MANIFEST_KINDS: tuple[type[Record], ...] = (EncoderCheckpoint, SegmentorCheckpoint, ScoreTable, DataManifest, PictureList)
KEY = b"0123456789abcdef" * 4
EMPTY = Backup(made=datetime(2026, 1, 1, tzinfo=UTC), versions={}, databases=(), trees=())
SEALED = EMPTY.encode()[::-1]  # text, name
MADE = re.compile(rb'"made": ?"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{6})Z"')
MODEL_FILE = "data/model.pt2"
BUNDLED = b"weights"


def yaml_document(content: bytes, folder: Path) -> None:
    # What is read is written elsewhere as UTF-8: text that cannot be is no text.
    json.dumps(read_yaml(put(content, folder / "d.yaml")), ensure_ascii=False, default=str, skipkeys=True).encode()


def json_document(content: bytes, folder: Path) -> None:
    tree = parse_json(read_text(put(content, folder / "d.json")))
    assert parse_json(json.dumps(tree, ensure_ascii=False).encode()) == tree


def params(content: bytes, folder: Path) -> None:
    settings = load_settings(put(content, folder / "params.yaml"))
    for place in (settings.data.root, settings.data.world, settings.data.shards):
        if isinstance(place, str | Path):
            os.fsencode(place)
            assert "\0" not in str(place)
    put(dump_settings(settings).encode(), folder / "again.yaml")
    assert load_settings(folder / "again.yaml") == settings


def overrides(content: bytes, folder: Path) -> None:
    load_settings(overrides=content.decode("utf-8", "surrogateescape").split("\n"))


def catalog(content: bytes, folder: Path) -> None:
    with patch.object(catalogs, "ALWAYS_LOADED", ()):  # the shipped files take a tenth of a second each time
        found = catalogs.load_catalog([put(content, folder / "own.yaml")])
    for encoding in found.encodings.values():
        if isinstance(encoding, LabelEncoding):
            unknown_values(np.arange(9, dtype=np.uint8), encoding)
    for benchmark in found.benchmarks.values():
        found.source_taxonomy(benchmark)
    for entry in found.datasets.values():
        for split in entry.splits:
            for path in (*entry.image_inputs(folder, split), *entry.label_inputs(folder, split)):
                path.exists()


def model_manifest(content: bytes, folder: Path) -> None:
    """A manifest beside weights, of whatever kind it says it is."""
    path = put(content, folder / "manifest.json")

    def read(kind: type[Record]) -> None:
        record = kind.read(path)
        if isinstance(record, EncoderCheckpoint | SegmentorCheckpoint):
            assert (folder / record.weights).resolve().parent == folder
        record.write(folder / "again.json")
        assert kind.read(folder / "again.json") == record

    each_of(*(partial(read, kind) for kind in MANIFEST_KINDS))


def bundle(content: bytes, folder: Path) -> None:
    """The manifest of a bundle beside its files, as whoever hands one on can write it."""
    put(BUNDLED, folder / "w.safetensors")
    put(content, folder / "manifest.json")
    found = read_bundle(folder)
    assert {(folder / file.name).resolve().parent for file in found.files} == {folder.resolve()}
    assert len(found.view.settings(3).scales) <= 16
    assert found.classes == tuple(name for name in found.classes if name.isprintable())
    render_card(found)
    found.write(folder / "again.json")
    assert Bundle.read(folder / "again.json") == found


def model_files(content: bytes, folder: Path) -> None:
    """Tags as MLflow gives them, and the files of a model held against them."""
    try:
        tags = json.loads(content)
        text = {str(key): str(value) for key, value in tags.items()}
    except (ValueError, AttributeError, RecursionError):  # MLflow's client gives text by text, or nothing
        text = {FILE_TAG + content.decode("utf-8", "replace"): content.hex()}
    model = folder / "model"
    (model / "data").mkdir(parents=True)
    put(b"program", model / MODEL_FILE)
    check_files(model, recorded(text), "models:/m")
    assert digests_of(model) == recorded(text)


def pin(content: bytes, folder: Path) -> None:
    """A pin, as DVC and we read it, and the record of a run's pins."""
    put(content, folder / "cityscapes.dvc")
    found = read_pin(folder, "cityscapes")
    assert found == pins_of(folder, [Path("cityscapes/leftImg8bit")]).pins[0]
    PinnedInputs(pins=(found,)).write(folder / "pins.json")
    assert PinnedInputs.read(folder / "pins.json").pins == (found,)
    assert found.size


def pinned_inputs(content: bytes, folder: Path) -> None:
    PinnedInputs.read(put(content, folder / "pins.json"))


def backup_manifest(content: bytes, folder: Path) -> None:
    """A manifest under the name that its own bytes ask for, as whoever can write the place can choose it; by a pinned digest."""
    found = MADE.search(content)
    moment = "{}{}{}T{}{}{}.{}Z".format(*(part.decode() for part in found.groups())) if found else "20260101T000000.000000Z"
    name = f"{moment}-{hashlib.sha256(content).hexdigest()[:16]}.json"
    (folder / MANIFESTS).mkdir()
    put(content, folder / MANIFESTS / name)
    backup_store = BackupStore(FolderShelf(folder))
    assert backup_store.names() == [name]
    backup = check_seal(backup_store, name, folder / "none", hashlib.sha256(content).hexdigest())
    assert backup == backup_store.read(name)
    assert backup.contents is not None


def backup_seal(content: bytes, folder: Path) -> None:
    """What lies in the place of a seal: none but the key's own fits, which nobody can guess."""
    text, name = SEALED
    for shelf, body in ((MANIFESTS, text), (SEALS, content)):
        (folder / "backup_store" / shelf).mkdir(parents=True)
        put(body, folder / "backup_store" / shelf / name)
    put(KEY, folder / "key").chmod(0o600)
    check_seal(BackupStore(FolderShelf(folder / "backup_store")), name, folder / "key", None)


def cost_notes(content: bytes, folder: Path) -> None:
    """A note that is damaged is set aside, and no stage stops: nothing is refused."""
    (folder / COSTS).mkdir()
    put(content, folder / COSTS / "stage-1-1.json")
    put(content, folder / METRICS)
    read_cost(folder)
    read_cost(folder)


def job_log(content: bytes, folder: Path) -> None:
    for line in content.decode("utf-8", "replace").splitlines():
        parse_metrics(line)
        files = parse_result(line)
        assert files is None or all(isinstance(path, str) for path in files)
        error = parse_error(line)
        assert error is None or isinstance(error, GkdError)


def state(content: bytes, folder: Path) -> None:
    (folder / platform_state.FOLDER).mkdir(parents=True)
    put(content, folder / platform_state.STATE_FILE)
    found = platform_state.read_state(folder)
    if found is None:
        assert platform_state.has_unreadable_state(folder)
        raise PlatformError("unreadable")
    found.write(folder)
    assert platform_state.read_state(folder) == found


def keys(content: bytes, folder: Path) -> None:
    put(content, folder / "keys.json").chmod(OWNER_ALONE)
    assert read_keys(folder) is not None


def measured(content: bytes, folder: Path) -> None:
    read_paces(put(content, folder / "measured.json"), ["distill-proxy", "distill-source-gta5"])


TARGETS = (
    Target("yaml", yaml_document, (DocumentError,), "yaml"),
    Target("json", json_document, (DocumentError,), "json"),
    Target("params", params, (SettingsError,), "yaml"),
    Target("overrides", overrides, (SettingsError,)),
    Target("catalog", catalog, (DataError,), "yaml"),
    Target("model-manifest", model_manifest, (GkdError,), "json"),
    Target("bundle", bundle, (GkdError,), "json"),
    Target("model-files", model_files, (WeightsError,), "json"),
    Target("pin", pin, (DataError,), "yaml"),
    Target("pinned-inputs", pinned_inputs, (GkdError,), "json"),
    Target("backup-manifest", backup_manifest, (DataError, PlatformError), "json"),
    Target("backup-seal", backup_seal, (DataError,)),
    Target("cost-notes", cost_notes, (), "json"),
    Target("job-log", job_log, ()),
    Target("platform-state", state, (PlatformError,), "json"),
    Target("server-keys", keys, (PlatformError,), "json"),
    Target("measured", measured, (SettingsError,), "json"),
)
