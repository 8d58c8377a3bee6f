"""How fast images are read here, from each place that they may lie in: bytes alone, and decoded and augmented by loaders.

Each figure is images a second, the median of the rounds; the places take turns within a round, so that they share the
machine's moods. Cold: the system's page cache is emptied of the files first. Example:

    python benchmarks/reading.py --images 2000 --loaders 2
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import torch
import typer
import yaml
from photographs import write_photographs
from rich.console import Console
from rich.table import Table

from gkd_core.data.blobs import DataFile, Member, read_bytes
from gkd_core.data.catalog import Catalog, load_catalog
from gkd_core.data.loader import batches_ahead
from gkd_core.data.origin import Folders, LocalSets, Origin, Shards
from gkd_core.data.preparing.command import prepare_domains
from gkd_core.data.sampling import batch_indices
from gkd_core.distill.views import ViewMaker
from gkd_core.settings import DistillSettings
from gkd_core.training.rank import Rank

DATASET, SPLIT = "photographs", "all"
ENTRY = {"folder": DATASET, "images": "images/*.jpg", "splits": {SPLIT: {}}}
COLUMNS = ("read, cold", "read, warm", "decoded and augmented, cold", "decoded and augmented, warm")

# Opens a place: gets the folder of files as they unpack and that of prepared shards. Another place is one more line here.
Place = Callable[[Path, Path], Origin]
PLACES: dict[str, Place] = {
    "folder": lambda files, shards: Folders(files),
    "shards": lambda files, shards: Shards(LocalSets(shards)),
}


def main(
    images: Annotated[int, typer.Option(help="Photographs to generate, 500 × 375 pixels.")] = 1000,
    batch: Annotated[int, typer.Option(help="Images in a batch.")] = 50,
    size: Annotated[int, typer.Option(help="Side of the crop, pixels.")] = 224,
    augment: Annotated[str, typer.Option(help="light or released.")] = "light",
    loaders: Annotated[int, typer.Option(help="Processes that make batches; 0 makes them in this one.")] = 2,
    rounds: Annotated[int, typer.Option(help="Times that everything is measured.")] = 3,
    shard_size: Annotated[int, typer.Option(help="Size of a shard, MB.")] = 16,
    folder: Annotated[Path | None, typer.Option(help="Where to write them: on the disk to measure.")] = None,
) -> None:
    """Measure reading from every place, side by side."""
    torch.set_num_threads(1)
    settings = DistillSettings(
        updates=1, batch_size=batch, image_size=(size, size), patch_size=16, augment=augment, repeated_augmentation=1
    )
    with _workspace(folder) as workspace:
        catalog = _prepared(workspace, images, shard_size)
        entry = catalog.dataset(DATASET)
        origins = {name: place(workspace / "files", workspace / "shards") for name, place in PLACES.items()}
        rates: dict[str, list[list[float]]] = {name: [] for name in origins}
        for _ in range(rounds):
            for name, origin in origins.items():
                files = origin.images(entry, SPLIT)
                rates[name].append(_measured(files, settings, loaders))
    _show({name: [statistics.median(column) for column in zip(*lines, strict=True)] for name, lines in rates.items()})


def _measured(files: Sequence[DataFile], settings: DistillSettings, loaders: int) -> list[float]:
    """Images a second in the order of COLUMNS."""
    order = batch_indices(0, len(files), len(files), "reading")

    def read() -> None:
        for index in order:
            read_bytes(files[index])

    def make_batches() -> None:
        views = ViewMaker("benchmark", 0, settings, files, patches=1, rank=Rank(), loaders=loaders)
        for _ in batches_ahead(views, range(len(files) // settings.batch_size), loaders, pinned=False):
            pass

    rates = []
    for work in (read, make_batches):
        for cold in (True, False):
            if cold:
                _forget(files)
            began = time.perf_counter()
            work()
            rates.append(len(files) / (time.perf_counter() - began))
    return rates


def _forget(files: Sequence[DataFile]) -> None:
    """Have the system drop what it holds in memory of these files."""
    paths = {file.store.path(file.shard) if isinstance(file, Member) else file for file in files}
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)  # what is not on the disk yet cannot be dropped
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def _prepared(workspace: Path, images: int, shard_size: int) -> Catalog:
    """Photographs in `files` and, as shards, in `shards`; gives the catalog that declares them."""
    write_photographs(workspace / "files" / DATASET / "images", images)
    declared = workspace / "catalog.yaml"
    declared.write_text(yaml.safe_dump({"datasets": {DATASET: ENTRY}}))
    catalog = load_catalog([declared])
    prepare_domains(
        catalog,
        [f"{DATASET}/{SPLIT}"],
        workspace / "files",
        workspace / "shards",
        shrunk=[],
        shard_bytes=shard_size * 1_000_000,
        jobs=1,
        bar=lambda title, total: nullcontext(lambda done: None),
        say=lambda line: None,
    )
    return catalog


@contextmanager
def _workspace(folder: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        yield Path(name)


def _show(rates: dict[str, list[float]]) -> None:
    table = Table(box=None)
    table.add_column("images / s")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    base = next(iter(rates.values()))
    for name, line in rates.items():
        table.add_row(name, *(f"{rate:.0f} ({rate / other:.2f} ×)" for rate, other in zip(line, base, strict=True)))
    Console(highlight=False).print(table)


if __name__ == "__main__":
    typer.run(main)
