"""Prepared data: the images or the labels of a dataset split in a few tar files, and the index that says what lies where.

    <root>/<dataset>/<split>/images/index.json
    <root>/<dataset>/<split>/images/<dataset>-<split>-images-00000-<digest>.tar …
    <root>/<dataset>/<split>/labels/…

Images and labels are separate sets, so that a stage without labels neither opens nor depends on one. An index that came from
elsewhere is hostile until checked: reading one checks every name, place and size in it.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from gkd_core.data.catalog.entries import Protocol
from gkd_core.data.catalog.taxonomy import IGNORE, Declaration
from gkd_core.data.catalog.tiling import Tiling
from gkd_core.data.files.blobs import Member, ShardStore
from gkd_core.documents import DocumentError, parse_json, read_small
from gkd_core.errors import DataError
from gkd_core.files import atomic_file
from gkd_core.messages import given_value, one_line, shown
from gkd_core.records import Record, sha256_of
from gkd_core.untrusted import PLAIN_NAME, PlainName, Sha256, objection_to

FORMAT: Literal["gkd-shards-1"] = "gkd-shards-1"
INDEX = "index.json"
DIGEST_LENGTH = 16
LARGEST_INDEX = 2**30  # bytes: some hundred for each of several million files

Content = Literal["images", "labels"]
Count = Annotated[int, Field(ge=0)]


class Shard(Declaration):
    """One tar file of a set: its name in the set's folder, its size in bytes and the SHA-256 of its content."""

    name: PlainName
    bytes: Count
    sha256: Sha256

    @model_validator(mode="after")
    def _named_by_its_digest(self) -> Self:
        if not self.name.endswith(f"-{self.sha256[:DIGEST_LENGTH]}.tar"):
            raise ValueError(f"a shard's name ends with the digest of its content, {self.sha256[:DIGEST_LENGTH]}.tar")
        return self

    def check(self, file: Path) -> None:
        """Read a copy of this shard through; `DataError` where it is missing or not what the index says."""
        try:
            size = file.stat().st_size
            whole = size == self.bytes and sha256_of(file) == self.sha256
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror or error}); fetch it again") from None
        if not whole:
            what = f"{size} of {self.bytes} bytes" if size != self.bytes else "its content has another SHA-256"
            raise DataError(f"{file}: not the shard that its index names ({what}); fetch it again")


class Members(Declaration):
    """The files of a set in the order in which the dataset lists them, one column a fact.

    Attributes:
        names: path in the tar: the image's path within the dataset, for a tile with its place; a label has its image's.
        shards: number of the shard that holds it.
        offsets: where its content begins in the shard, in bytes.
        sizes: bytes of its content.
    """

    names: tuple[str, ...]
    shards: tuple[Count, ...]
    offsets: tuple[Count, ...]
    sizes: tuple[Count, ...]

    @field_validator("names")
    @classmethod
    def _stay_inside(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not is_safe(name):
                raise ValueError(f"{name!r:.200} is no path inside a dataset")
        if len({key_of(name) for name in names}) != len(names):
            raise ValueError("a name appears twice")
        return names

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        lengths = [len(column) for column in (self.names, self.shards, self.offsets, self.sizes)]
        if len(set(lengths)) > 1:
            raise ValueError(f"the columns have {', '.join(map(str, lengths))} entries; expected as many in each")
        return self


class Preparation(Declaration):
    """What was done to the files before they were packed; null where nothing was.

    Attributes:
        tiles: pictures were cut into these tiles.
        bands: channels of the original that red, green and blue were taken from, counted from 0.
        protocol: images have the size at which this protocol shows them, labels that at which it scores them.
        scaling: how the protocol's `scale` was applied, where it has one; bilinear before recipe version 3.
    """

    tiles: Tiling | None = None
    bands: tuple[Count, Count, Count] | None = None
    protocol: Protocol | None = None
    scaling: Literal["bilinear", "bicubic"] = "bilinear"


class TrainIds(Declaration):
    """What the ids of a set of labels stand for; 255 is ignored.

    Attributes:
        encoding: the catalog's name for the table by which the original ids became train ids.
        table: digest of that table (`table_digest`).
    """

    taxonomy: str
    classes: tuple[str, ...] = Field(min_length=1, max_length=IGNORE)
    encoding: str
    table: Sha256


class ShardIndex(Record):
    """All that reading a set needs. The bytes of its file follow from what was prepared alone.

    Attributes:
        source: digest of what was prepared: the entry, the preparation, names and sizes of the original files.
        train_ids: what labels mean; null in a set of images.
    """

    format: Literal["gkd-shards-1"] = FORMAT
    dataset: PlainName
    split: PlainName
    content: Content
    source: Sha256
    preparation: Preparation = Preparation()
    train_ids: TrainIds | None = None
    shards: tuple[Shard, ...] = Field(min_length=1)
    members: Members

    @model_validator(mode="after")
    def _members_lie_in_their_shards(self) -> Self:
        if len({shard.name for shard in self.shards}) != len(self.shards):
            raise ValueError("a shard appears twice")
        if (self.content == "labels") != (self.train_ids is not None):
            raise ValueError("train_ids belong to a set of labels, and to it alone")
        columns = self.members
        for name, shard, offset, size in zip(columns.names, columns.shards, columns.offsets, columns.sizes, strict=True):
            if shard >= len(self.shards) or offset + size > self.shards[shard].bytes:
                raise ValueError(f"{name!r:.200}: bytes {offset} to {offset + size} of shard {shard} are outside of it")
        return self

    @property
    def place(self) -> str:
        """The set's folder below the root of all prepared data."""
        return set_folder(self.dataset, self.split, self.content)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Names without suffix, which an image shares with its label."""
        return tuple(map(key_of, self.members.names))

    def files(self, store: ShardStore) -> list[Member]:
        """The members in the dataset's order, to be read through `store`."""
        columns, shards = self.members, [shard.name for shard in self.shards]
        return [
            Member(store, shards[shard], name, offset, size)
            for name, shard, offset, size in zip(columns.names, columns.shards, columns.offsets, columns.sizes, strict=True)
        ]

    def write(self, path: Path) -> None:
        """Write as one line of JSON a section, atomically."""
        tree = self.model_dump(mode="json")
        sections = [f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}" for key, value in tree.items()]
        with atomic_file(path) as temporary:
            temporary.write_text("{" + ",\n".join(sections) + "}\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check an index file.

        Raises:
            DataError: it is missing, is no index, is of another version, or claims what cannot be.
        """
        try:
            return cls.parse(read_small(path, LARGEST_INDEX), str(path))
        except FileNotFoundError:
            raise DataError(f"{path}: no such index; write the shards with: gkd data prepare") from None
        except (OSError, DocumentError) as error:
            raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None

    @classmethod
    def parse(cls, content: bytes, origin: str) -> Self:
        """An index from the bytes of its file; `origin` is where they came from, for the message.

        Raises:
            DataError: as `read`.
        """
        try:
            tree = parse_json(content, LARGEST_INDEX)
        except DocumentError:
            raise DataError(f"{origin}: not JSON; it is truncated or no index, prepare or fetch it again") from None
        version = tree.get("format") if isinstance(tree, dict) else None
        if version != FORMAT:
            raise DataError(
                f"{origin}: format {given_value(version)}, expected '{FORMAT}'; prepare the data again with this version"
            )
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = shown(".".join(map(str, first["loc"]))) or "the whole"
            what = f"{where}: {one_line(first['msg'], 300)}"
            raise DataError(f"{origin}: damaged index ({what}); prepare or fetch it again") from None


def set_folder(dataset: str, split: str, content: Content) -> str:
    """The folder of a set below the root of all prepared data, `dataset/split/content`; `DataError` for a name that is no
    plain one."""
    for name in (dataset, split):
        if not PLAIN_NAME.fullmatch(name):
            raise DataError(f"'{name}': the name of a dataset or split in shards has letters, digits and ._+- only")
    return f"{dataset}/{split}/{content}"


def table_digest(encoding: Declaration) -> str:
    """SHA-256 of a label table as the catalog declares it."""
    return hashlib.sha256(json.dumps(encoding.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def key_of(name: str) -> str:
    """A member's name without its suffix."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and "/" not in suffix and stem and not stem.endswith("/") else name


def is_safe(name: str) -> bool:
    """Whether a name is a plain relative path: nothing that leads out of a folder it is unpacked to."""
    return name.isprintable() and objection_to(name) is None
