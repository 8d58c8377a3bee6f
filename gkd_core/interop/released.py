"""The authors' checkpoint imported: from file to a description of what became of each tensor, and to a folder of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from gkd_core.data.catalog.load import Benchmark, Catalog, load_catalog
from gkd_core.files import atomic_folder
from gkd_core.interop.checkpoint import read_released
from gkd_core.interop.importing import OPTIONAL, RELEASED_NORM, Imported, import_stage_one, import_stage_two
from gkd_core.interop.sizes import decoder_sizes
from gkd_core.models.tensor_files import write_tensors
from gkd_core.records import MANIFEST, EncoderCheckpoint, Record, SegmentorCheckpoint, sha256_of
from gkd_core.settings import EncoderSettings


def import_released(file: Path, arch: str, benchmark: str, output: Path | None) -> list[str]:
    """Read a checkpoint of the authors' and give the account of its tensors, line by line.

    Args:
        arch: the student's architecture, as timm names it.
        benchmark: what a stage-two checkpoint was trained for; stage one needs none.
        output: folder to write; None writes nothing.

    Raises:
        GkdError: the file is not such a checkpoint, wants more than data, or does not fit the architecture.
    """
    # Whatever timm states for the architecture, the release normalises by ImageNet's mean and deviation.
    checkpoint, encoder = read_released(file), EncoderSettings(arch=arch, normalisation="imagenet")
    if checkpoint.kind == "stage-one":
        imported = import_stage_one(checkpoint, encoder)
        if output is not None:
            write_encoder(imported, output)
    else:
        catalog = load_catalog()
        task = catalog.benchmark(benchmark)
        classes = catalog.source_taxonomy(task).classes
        imported = import_stage_two(checkpoint, encoder, len(classes))
        if output is not None:
            write_segmentor(imported, output, task, catalog)
    written = "nothing written: give --output DIR to keep it" if output is None else f"wrote {output}"
    return [*describe(imported), written]


EXAMPLES = 3


def describe(imported: Imported) -> list[str]:
    """Lines for the terminal: what was mapped, set aside and unknown, by count and by name."""
    checkpoint, renamed, coverage = imported.checkpoint, imported.renamed, imported.coverage
    encoder = imported.encoder
    lines = [
        f"{checkpoint.path}: {checkpoint.kind}, {len(checkpoint.tensors)} tensors",
        f"encoder   {encoder.arch}, patch {encoder.patch_size}, laid out for {encoder.image_size} × {encoder.image_size} pixels",
        f"mapped    {len(renamed.mapped)} tensors to {len(renamed.tensors)} of the model's {len(coverage.loaded)}",
    ]
    lines += [f"          {part}: {count}" for part, count in _parts(tuple(renamed.tensors)).items()]
    kept = [name for name in OPTIONAL if name in coverage.loaded and name not in renamed.tensors]
    lines += [f"kept      {name}: not in the checkpoint, not used after stage one" for name in kept]
    lines += [f"left out  {len(names)}: {reason} ({_some(names)})" for reason, names in renamed.aside.items()]
    lines += [f"unknown   {name}" for name in renamed.unknown]
    if checkpoint.unread:
        lines.append(f"not read  {', '.join(checkpoint.unread)}")
    return lines


def _parts(names: Sequence[str]) -> dict[str, int]:
    """Number of names under each of the model's parts, such as `student` or `decoder.pixel_decoder`."""
    counts: dict[str, int] = {}
    for name in names:
        words = name.split(".")
        part = ".".join(words[: 2 if words[0] == "decoder" else 1])
        counts[part] = counts.get(part, 0) + 1
    return counts


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:EXAMPLES]) + (", …" if len(names) > EXAMPLES else "")


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
            feature_norm=RELEASED_NORM,
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
