"""How fast images are read here, from each place that they may lie in: bytes alone, and decoded and augmented by loaders.

Each figure is images a second, the median of the rounds; the places take turns within a round, so that they share the
machine's moods. Cold: the system's page cache is emptied of the files first; of a bucket, the shard cache is empty, so that
all is fetched while it is measured. Example:

    python benchmarks/reading.py --images 2000 --loaders 2
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
import yaml
from loopback_bucket import loopback_bucket
from photographs import write_photographs
from rich.console import Console
from rich.table import Table

from gkd_core.data.catalog.load import Domain, load_catalog
from gkd_core.data.files.blobs import DataFile, Member, read_bytes
from gkd_core.data.files.origin import Folders, LocalSets, Origin, Shards
from gkd_core.data.files.shards import set_folder
from gkd_core.data.order.loader import batches_ahead
from gkd_core.data.order.samples import Reading
from gkd_core.data.order.sampling import batch_indices
from gkd_core.data.preparing.building import prepare_domains
from gkd_core.distill.views import ViewMaker
from gkd_core.settings import DistillSettings, StreamingSettings
from gkd_core.storage.keys import Location
from gkd_core.storage.sets import S3Sets, fetch_indexes

DATASET, SPLIT = "photographs", "all"
ENTRY = {"folder": DATASET, "images": "images/*.jpg", "splits": {SPLIT: {}}}
COLUMNS = ("read, cold", "read, warm", "decoded and augmented, cold", "decoded and augmented, warm")

Files = Sequence[DataFile]


@dataclass(frozen=True)
class Place:
    """Where images lie: gives them with nothing of them in memory (cold), or as they were left; and the order to train in."""

    cold: Callable[[], Files]
    warm: Callable[[], Files]
    streaming: StreamingSettings | None = None


def local(origin: Origin, domain: Domain) -> Place:
    """Files or shards on the disk."""

    def cold() -> Files:
        files = origin.images(domain)
        _forget(files)
        return files

    return Place(cold, lambda: origin.images(domain))


def bucket(address: Location, workspace: Path, domain: Domain) -> Place:
    """Shards by S3 through the cache: cold, it is empty."""
    indexes, cache = workspace / "indexes", workspace / "cache"
    sets = S3Sets(address, indexes, str(cache), 1024**4)
    fetch_indexes(sets, [set_folder(DATASET, SPLIT, "images")])

    def warm() -> Files:
        return Shards(sets).images(domain)

    def cold() -> Files:
        if cache.exists():
            shutil.rmtree(cache)
        return warm()

    return Place(cold, warm, StreamingSettings(lanes=1, window=2))


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
    with ExitStack() as stack:
        workspace = stack.enter_context(_workspace(folder))
        domain = _prepared(workspace, images, shard_size)
        address = stack.enter_context(loopback_bucket(workspace / "shards", workspace / "server.log"))
        places = {
            "folder": local(Folders(workspace / "files"), domain),
            "shards": local(Shards(LocalSets(workspace / "shards")), domain),
            "shards by S3 (loopback)": bucket(address, workspace, domain),
        }
        rates: dict[str, list[list[float]]] = {name: [] for name in places}
        for _ in range(rounds):
            for name, place in places.items():
                rates[name].append(_measured(place, settings, loaders))
    _show({name: [statistics.median(column) for column in zip(*lines, strict=True)] for name, lines in rates.items()})


def _measured(place: Place, settings: DistillSettings, loaders: int) -> list[float]:
    """Images a second in the order of COLUMNS."""

    def read(files: Files) -> None:
        for index in batch_indices(0, len(files), len(files), "reading"):
            read_bytes(files[index])

    def make_batches(files: Files) -> None:
        updates = len(files) // settings.batch_size
        views = ViewMaker(settings, files, Reading("benchmark", 0, None, place.streaming, updates), 1, loaders)
        for _ in batches_ahead(views, range(updates), loaders, pinned=False):
            pass

    rates = []
    for work in (read, make_batches):
        for files_of in (place.cold, place.warm):
            files = files_of()
            began = time.perf_counter()
            work(files)
            rates.append(len(files) / (time.perf_counter() - began))
    return rates


def _forget(files: Files) -> None:
    """Have the system drop what it holds in memory of these files."""
    paths = {file.store.path(file.shard) if isinstance(file, Member) else file for file in files}
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)  # what is not on the disk yet cannot be dropped
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def _prepared(workspace: Path, images: int, shard_size: int) -> Domain:
    """Photographs in `files` and, as shards, in `shards`; gives the domain that they are."""
    write_photographs(workspace / "files" / DATASET / "images", images)
    declared = workspace / "catalog.yaml"
    declared.write_text(yaml.safe_dump({"datasets": {DATASET: ENTRY}}))
    domain = load_catalog([declared]).domain(f"{DATASET}/{SPLIT}")
    prepare_domains(
        [domain],
        workspace / "files",
        workspace / "shards",
        shrunk=[],
        shard_bytes=shard_size * 1_000_000,
        jobs=1,
        bar=lambda title, total: nullcontext(lambda done: None),
        say=lambda line: None,
    )
    return domain


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
