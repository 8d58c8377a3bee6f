"""An imported model as a folder of ours: safetensors and the manifest that describes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from gkd_core.data.catalog.load import Benchmark, Catalog
from gkd_core.files import atomic_folder
from gkd_core.interop.importing import Imported
from gkd_core.interop.sizes import decoder_sizes
from gkd_core.models.tensor_files import write_tensors
from gkd_core.records import MANIFEST, EncoderCheckpoint, Record, SegmentorCheckpoint, sha256_of

STAGE = "import-checkpoint"
METHOD = "gkd"  # the authors release no rival's weights
ENCODER, OBJECTIVE, SEGMENTOR = "encoder.safetensors", "objective.safetensors", "segmentor.safetensors"


def write_encoder(imported: Imported, folder: Path) -> None:
    """Write what stage one writes: the student, the student with its heads, and the record."""
    objective = imported.model.state_dict()
    student = {name.removeprefix("student."): value for name, value in objective.items() if name.startswith("student.")}

    def record(weights: Path) -> Record:
        return EncoderCheckpoint(
            encoder=imported.encoder,
            weights=ENCODER,
            sha256=sha256_of(weights / ENCODER),
            stage=STAGE,
            method=METHOD,
            seed=0,
            updates=imported.checkpoint.updates,
        )

    _write(folder, {ENCODER: student, OBJECTIVE: objective}, record)


def write_segmentor(imported: Imported, folder: Path, benchmark: Benchmark, catalog: Catalog) -> None:
    """Write what stage two writes: the segmentor and the record."""
    taxonomy = catalog.source_taxonomy(benchmark)
    sizes, width = decoder_sizes(imported.checkpoint)

    def record(weights: Path) -> Record:
        return SegmentorCheckpoint(
            encoder=imported.encoder,
            decoder="mask2former",
            decoder_width=width,
            mask2former=sizes,
            taxonomy=taxonomy.name,
            classes=taxonomy.classes,
            source=benchmark.source.name,
            weights=SEGMENTOR,
            sha256=sha256_of(weights / SEGMENTOR),
            method=METHOD,
            seed=0,
            updates=imported.checkpoint.updates,
            encoder_frozen=True,
        )

    _write(folder, {SEGMENTOR: imported.model.state_dict()}, record)


def _write(folder: Path, files: Mapping[str, Mapping[str, Tensor]], record: Callable[[Path], Record]) -> None:
    with atomic_folder(folder) as temporary:
        for name, tensors in files.items():
            write_tensors(tensors, temporary / name)
        record(temporary).write(temporary / MANIFEST)
