"""Where a run's datasets lie, in folders as their archives unpack or in prepared shards, and which files they are made of.

Every stage asks an origin for its images and labels, so that none of them knows the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Interface

from gkd_core.data.catalog.entries import DatasetEntry, Protocol
from gkd_core.data.catalog.load import Domain
from gkd_core.data.catalog.taxonomy import IGNORE, LabelEncoding
from gkd_core.data.files.blobs import DataFile, LocalShards, ShardStore
from gkd_core.data.files.reading import Pair, list_images, list_pairs, resolve_encoding
from gkd_core.data.files.shards import INDEX, Content, ShardIndex, set_folder, table_digest
from gkd_core.errors import DataError


class Origin(Interface):
    """Where datasets lie. Whatever is missing or not as declared is a `DataError` that names it."""

    def images(self, domain: Domain) -> Sequence[DataFile]:
        """Images of a split in the dataset's order. No label is looked at."""
        ...

    def count(self, domain: Domain) -> int:
        """How many images of a split are there, ready to be read or not."""
        ...

    def pairs(self, domain: Domain) -> Sequence[Pair]:
        """Images of a split with their labels, in the order of `images`."""
        ...

    def encoding(self, domain: Domain) -> LabelEncoding:
        """What the ids in the label files mean."""
        ...

    def protocol(self, domain: Domain) -> Protocol | None:
        """The sizes that evaluation must still bring images and labels to; None where they lie at these sizes already."""
        ...

    def folder(self, domain: Domain) -> str:
        """The split's folder below the root of all data."""
        ...

    def name(self, domain: Domain, file: DataFile) -> str:
        """An image's path below the root of datasets as they unpack, for a list that means the same everywhere."""
        ...

    def image_inputs(self, domain: Domain) -> list[Path]:
        """Files and folders that decide what `images` are: a stage without labels depends on these alone."""
        ...

    def label_inputs(self, domain: Domain) -> list[Path]:
        """Files and folders that decide what the labels are, beside `image_inputs`."""
        ...

    def inputs(self, domain: Domain) -> list[Path]:
        """Folders that hold all of the split."""
        ...


@dataclass(frozen=True)
class Folders:
    """Datasets as their archives unpack, below one folder."""

    root: Path

    def images(self, domain: Domain) -> Sequence[DataFile]:
        self._check_ready(domain.entry)
        return list_images(domain.entry, self.root, domain.split)

    def count(self, domain: Domain) -> int:
        return len(list_images(domain.entry, self.root, domain.split))

    def pairs(self, domain: Domain) -> Sequence[Pair]:
        self._check_ready(domain.entry)
        return list_pairs(domain.entry, self.root, domain.split)

    def encoding(self, domain: Domain) -> LabelEncoding:
        return resolve_encoding(domain.catalog, domain.entry, self.root)

    def protocol(self, domain: Domain) -> Protocol | None:
        return domain.entry.protocol

    def folder(self, domain: Domain) -> str:
        return domain.entry.folder

    def name(self, domain: Domain, file: DataFile) -> str:
        return file.relative_to(self.root).as_posix() if isinstance(file, Path) else file.name

    def image_inputs(self, domain: Domain) -> list[Path]:
        return domain.entry.image_inputs(self.root, domain.split)

    def label_inputs(self, domain: Domain) -> list[Path]:
        return domain.entry.label_inputs(self.root, domain.split)

    def inputs(self, domain: Domain) -> list[Path]:
        return [domain.entry.dataset_folder(self.root)]

    def __str__(self) -> str:
        return str(self.root)

    def _check_ready(self, entry: DatasetEntry) -> None:
        if entry.is_raw:
            raise DataError(
                f"dataset '{entry.name}' is declared raw (tiles, bands): it is read from shards alone; "
                "run gkd data prepare, and set data.shards to its output"
            )


class ShardSets(Interface):
    """Sets of shards by their place below a root, `dataset/split/images` or `…/labels` (`ShardIndex.place`)."""

    def index(self, place: str) -> ShardIndex:
        """The checked index of a set; `DataError` where there is none or it is damaged."""
        ...

    def store(self, index: ShardIndex) -> ShardStore:
        """What its shards are read through."""
        ...

    def inputs(self, place: str) -> list[Path]:
        """Local files or folders that a stage depends on that reads the set."""
        ...


@dataclass(frozen=True)
class LocalSets:
    """Sets of shards in a folder of this machine."""

    root: Path

    def index(self, place: str) -> ShardIndex:
        return ShardIndex.read(self.root / place / INDEX)

    def store(self, index: ShardIndex) -> ShardStore:
        return LocalShards(self.root / index.place)

    def inputs(self, place: str) -> list[Path]:
        return [self.root / place]

    def __str__(self) -> str:
        return str(self.root)


@dataclass(frozen=True)
class Shards:
    """Datasets in prepared shards."""

    sets: ShardSets

    def images(self, domain: Domain) -> Sequence[DataFile]:
        index = self._index(domain, "images")
        return index.files(self.sets.store(index))

    def count(self, domain: Domain) -> int:
        return len(self._index(domain, "images").members.names)

    def pairs(self, domain: Domain) -> Sequence[Pair]:
        images, labels = self._index(domain, "images"), self._index(domain, "labels")
        if images.keys != labels.keys or images.preparation != labels.preparation:
            raise DataError(
                f"{self.sets}/{labels.place}: its labels are not those of {images.place} (other names, tiles or sizes); "
                "prepare both together again"
            )
        files = zip(images.files(self.sets.store(images)), labels.files(self.sets.store(labels)), strict=True)
        return [Pair(image, label) for image, label in files]

    def encoding(self, domain: Domain) -> LabelEncoding:
        train_ids = self._index(domain, "labels").train_ids
        assert train_ids is not None  # the index of labels has them
        taxonomy = domain.taxonomy
        now = table_digest(domain.encoding)
        if (train_ids.taxonomy, train_ids.classes, train_ids.table) != (taxonomy.name, taxonomy.classes, now):
            raise DataError(
                f"{self.sets}/{self.folder(domain)}/labels: prepared with other classes or another table than the catalog's "
                f"encoding '{domain.entry.encoding}' is now (then '{train_ids.encoding}'); prepare it again"
            )
        return train_id_encoding(train_ids.taxonomy, len(train_ids.classes))

    def protocol(self, domain: Domain) -> Protocol | None:
        preparation = self._index(domain, "images").preparation
        applied = preparation.protocol
        if applied is not None and preparation.scaling != applied.scaling:
            raise DataError(
                f"{self.sets}/{self.folder(domain)}: scaled by {applied.scale:g} bilinearly, as before recipe version 3; "
                "prepare it again"
            )
        if applied not in (None, domain.entry.protocol):
            raise DataError(
                f"{self.sets}/{self.folder(domain)}: prepared at the sizes of another protocol than the catalog's "
                f"({applied}); prepare it again"
            )
        return domain.entry.protocol if applied is None else None

    def folder(self, domain: Domain) -> str:
        return domain.reference

    def name(self, domain: Domain, file: DataFile) -> str:
        return str(file) if isinstance(file, Path) else f"{domain.entry.folder}/{file.name}"

    def image_inputs(self, domain: Domain) -> list[Path]:
        return self.sets.inputs(set_folder(domain.entry.name, domain.split, "images"))

    def label_inputs(self, domain: Domain) -> list[Path]:
        return self.sets.inputs(set_folder(domain.entry.name, domain.split, "labels"))

    def inputs(self, domain: Domain) -> list[Path]:
        return self.image_inputs(domain) + (self.label_inputs(domain) if domain.is_labelled else [])

    def __str__(self) -> str:
        return str(self.sets)

    def _index(self, domain: Domain, content: Content) -> ShardIndex:
        place = set_folder(domain.entry.name, domain.split, content)
        index = self.sets.index(place)
        if index.place != place:
            raise DataError(f"{self.sets}/{place}/{INDEX}: it is the index of {index.place}; a set's folder has its name")
        return index


def train_id_encoding(taxonomy: str, classes: int) -> LabelEncoding:
    """The encoding of labels that are train ids already."""
    return LabelEncoding(taxonomy=taxonomy, ids={train_id: train_id for train_id in (*range(classes), IGNORE)})


def training_files_keep_their_size(origin: Origin, domain: Domain) -> None:
    """Raise `DataError` where a split to train on was shrunk to what evaluation shows."""
    if origin.protocol(domain) is None:
        raise DataError(
            f"{origin}/{origin.folder(domain)}: prepared at the size at which it is evaluated, but this run trains on it; "
            "prepare it at its own size"
        )
