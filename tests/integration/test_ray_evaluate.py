"""Evaluation shared out among real Ray workers: the same matrix as in one process, and errors as they were raised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from gkd_core.cluster.connect import own_cluster
from gkd_core.cluster.evaluate import Share, measuring_on_ray
from gkd_core.data.catalog.entries import Protocol
from gkd_core.data.catalog.taxonomy import LabelEncoding
from gkd_core.data.files.reading import Pair
from gkd_core.errors import DataError, PlatformError
from gkd_core.evaluate.matrix import ScoredImages, measure
from gkd_core.models.build import build_encoder
from gkd_core.models.segmentor import build_segmentor, load_segmentor
from gkd_core.records import MANIFEST, SegmentorCheckpoint, sha256_of
from gkd_core.settings import EncoderSettings, EvaluateSettings
from gkd_core.training.cost import FOLDER, ProcessCost

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ENCODING = LabelEncoding(taxonomy="street", ids={0: 0, 1: 1, 2: 2, 9: 255})
SETTINGS = EvaluateSettings(window=(32, 32), stride=(21, 21), workers=2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with own_cluster(2):
        yield


@pytest.fixture
def share(vit_settings: EncoderSettings, tmp_path: Path) -> Share:
    folder = tmp_path / "segmentor"
    folder.mkdir()
    segmentor = build_segmentor(build_encoder(vit_settings, 0), "linear", 3, 8, 0)
    safetensors.torch.save_file(segmentor.state_dict(), folder / "w.safetensors")
    SegmentorCheckpoint(
        encoder=vit_settings, decoder="linear", decoder_width=8, taxonomy="street", classes=("a", "b", "c"),
        source="gta5", weights="w.safetensors", sha256=sha256_of(folder / "w.safetensors"), method="gkd", seed=0,
        updates=1, encoder_frozen=True,
    ).write(folder / MANIFEST)  # fmt: skip
    return Share(folder, SETTINGS, "cpu", threads=1, run_folder=folder.with_name("run"), start_minutes=5)


@pytest.fixture
def domain(tmp_path: Path) -> ScoredImages:
    draws, pairs = np.random.default_rng(0), []
    for index in range(19):
        Image.fromarray(draws.integers(0, 256, (40, 72, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
        Image.fromarray(draws.choice(np.array([0, 1, 2, 9], np.uint8), (40, 72))).save(tmp_path / f"{index}_label.png")
        pairs.append(Pair(tmp_path / f"{index}.png", tmp_path / f"{index}_label.png"))
    return ScoredImages(pairs, ENCODING, Protocol(), classes=3)


def test_two_workers_count_what_one_process_counts(cluster: None, share: Share, domain: ScoredImages) -> None:
    alone = measure(load_segmentor(share.folder), domain, SETTINGS, torch.device("cpu"), lambda done: None)
    done: list[int] = []
    with measuring_on_ray(share) as measured_on:
        together = measured_on(domain, done.append)
        broken = domain.pairs[7].label
        broken.write_bytes(b"no image")
        with pytest.raises(DataError, match=rf"{broken.name}: no PNG, JPEG, .* by its content"):
            measured_on(domain, lambda done: None)
    assert torch.equal(together, alone)
    assert done == sorted(done)
    assert len(done) > 2
    assert done[-1] == 19
    notes = [ProcessCost.read(path) for path in (share.run_folder / FOLDER).glob("worker-*.json")]  # none half-written
    assert {note.role for note in notes} == {"worker-0", "worker-1"}
    assert all(note.peak_host_bytes > 100_000_000 for note in notes)  # torch at least


def test_more_workers_than_there_is_room_for_are_refused(cluster: None, share: Share) -> None:
    crowd = Share(share.folder, SETTINGS.model_copy(update={"workers": 3}), "cpu", 1, share.run_folder, 5)
    with pytest.raises(PlatformError, match="3 workers need 3 CPUs, and Ray has 2"), measuring_on_ray(crowd):
        pass
