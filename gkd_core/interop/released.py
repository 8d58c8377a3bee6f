"""The authors' checkpoint, from file to account, and to a folder of ours where one is asked for."""

from __future__ import annotations

from pathlib import Path

from gkd_core.data.catalog.load import load_catalog
from gkd_core.interop.checkpoint import read_released
from gkd_core.interop.importing import import_stage_one, import_stage_two
from gkd_core.interop.report import describe
from gkd_core.interop.writing import write_encoder, write_segmentor
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
    checkpoint, encoder = read_released(file), EncoderSettings(arch=arch)
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
