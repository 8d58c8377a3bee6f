"""What a set of shards is to hold: which files, and what becomes of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy
import PIL

from gkd_core.data.catalog.entries import DatasetEntry, Protocol
from gkd_core.data.catalog.load import Domain
from gkd_core.data.files.reading import Pair, list_images, list_pairs, resolve_encoding
from gkd_core.data.files.shards import FORMAT, Content, Preparation, TrainIds, is_safe, key_of, set_folder, table_digest
from gkd_core.data.preparing.conversion import Conversion, ImageConversion, LabelConversion, Source
from gkd_core.errors import DataError


@dataclass(frozen=True)
class SetPlan:
    """One set to write.

    Attributes:
        sources: the files in the dataset's order.
        source_digest: of all that the set's bytes follow from: declarations, options, names and sizes of files.
        state_digest: of that, times of change, and the versions of what encodes; unfinished work of an equal one is taken up.
    """

    dataset: str
    split: str
    content: Content
    sources: tuple[Source, ...]
    conversion: Conversion
    train_ids: TrainIds | None
    shard_bytes: int
    source_digest: str
    state_digest: str

    @property
    def place(self) -> str:
        """The set's folder below the root of all prepared data."""
        return set_folder(self.dataset, self.split, self.content)


def plan_domain(domain: Domain, root: Path, shrink: bool, shard_bytes: int) -> list[SetPlan]:
    """The sets of a `dataset/split` whose files lie below `root`: its images and, where it is labelled, its labels.

    Args:
        shrink: bring images, and labels where the entry's protocol resizes them, to the sizes that evaluation uses.
        shard_bytes: bytes of a shard, about.

    Raises:
        DataError: the dataset is not whole, or a name in it cannot be in a shard.
    """
    entry, split = domain.entry, domain.split
    protocol = entry.protocol if shrink and entry.protocol != Protocol() else None
    scaling = Protocol().scaling if protocol is None else protocol.scaling
    preparation = Preparation(tiles=entry.tiles, bands=entry.bands, protocol=protocol, scaling=scaling)
    base = entry.dataset_folder(root)
    images = list_images(entry, root, split)
    sources = _sources(base, ((image, image) for image in images))
    plans = [_plan(entry, split, "images", sources, ImageConversion(preparation), None, shard_bytes)]
    if domain.is_labelled:
        pairs = ((_path(pair, "image"), _path(pair, "label")) for pair in list_pairs(entry, root, split))
        encoding = resolve_encoding(domain.catalog, entry, root)
        taxonomy, declared = domain.taxonomy, domain.encoding
        train_ids = TrainIds(
            taxonomy=taxonomy.name, classes=taxonomy.classes, encoding=str(entry.encoding), table=table_digest(declared)
        )
        conversion = LabelConversion(preparation, encoding)
        plans.append(_plan(entry, split, "labels", _sources(base, pairs), conversion, train_ids, shard_bytes))
    return plans


def _plan(
    entry: DatasetEntry,
    split: str,
    content: Content,
    sources: tuple[Source, ...],
    conversion: Conversion,
    train_ids: TrainIds | None,
    shard_bytes: int,
) -> SetPlan:
    files = [(source.key, source.file.name, source.file.stat()) for source in sources]
    facts = {
        "format": FORMAT,
        "set": set_folder(entry.name, split, content),
        "preparation": conversion.preparation.model_dump(mode="json"),
        "train_ids": None if train_ids is None else train_ids.model_dump(mode="json"),
        "ids": conversion.encoding.model_dump(mode="json") if isinstance(conversion, LabelConversion) else None,
        "shard_bytes": shard_bytes,
        "files": [(key, name, status.st_size) for key, name, status in files],
    }
    versions = [PIL.__version__, numpy.__version__]
    state = facts | {"changed": [status.st_mtime_ns for _, _, status in files], "versions": versions}
    return SetPlan(entry.name, split, content, sources, conversion, train_ids, shard_bytes, _digest(facts), _digest(state)[:16])


def _sources(base: Path, files: Iterable[tuple[Path, Path]]) -> tuple[Source, ...]:
    """Sources of (image, file to convert)."""
    sources: dict[str, Source] = {}
    for image, file in files:
        key = key_of(image.relative_to(base).as_posix())
        if not is_safe(key):
            raise DataError(f"{base}/{key!r}: a name in a shard has neither control characters nor a backslash; rename the file")
        if key in sources:
            raise DataError(f"{image}: has the name of {sources[key].image} but for the suffix; an image needs one of its own")
        sources[key] = Source(key, file, image)
    return tuple(sources.values())


def _path(pair: Pair, side: str) -> Path:
    path = getattr(pair, side)
    assert isinstance(path, Path)  # files in folders are listed as paths
    return path


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
