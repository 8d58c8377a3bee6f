"""Prepared data in a bucket: its indexes are fetched first, and copied here; its shards when they are needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gkd_core.data.files.shards import INDEX, ShardIndex
from gkd_core.errors import DataError
from gkd_core.files import atomic_file
from gkd_core.storage.keys import Location

if TYPE_CHECKING:
    from gkd_core.storage.shards import S3Shards


@dataclass(frozen=True)
class S3Sets:
    """Sets of shards below a prefix, with copies of their indexes in a folder. A `ShardSets`.

    Attributes:
        place: the prefix that stands for the root of all prepared data.
        indexes: folder of the copies; a stage depends on these alone, as an index has the digest of every shard.
        cache, cache_bytes: the shard cache of whatever machine reads, and its bound.
    """

    place: Location
    indexes: Path
    cache: str
    cache_bytes: int

    def index(self, place: str) -> ShardIndex:
        path = self.indexes / place / INDEX
        if not path.exists():
            raise DataError(f"{path}: the index of {self.place / place} is not here; run the stage prepare-data first")
        return ShardIndex.read(path)

    def store(self, index: ShardIndex) -> S3Shards:
        # Here, as a plan only asks what a stage depends on, and boto3 takes its time to load.
        from gkd_core.storage.shard_cache import ShardCache
        from gkd_core.storage.shards import S3Shards

        return S3Shards(self.place / index.place, index, ShardCache(Path(self.cache), self.cache_bytes))

    def inputs(self, place: str) -> list[Path]:
        return [self.indexes / place / INDEX]

    def __str__(self) -> str:
        return str(self.place)


def fetch_indexes(sets: S3Sets, places: Iterable[str]) -> None:
    """Copy the indexes of these sets here, each checked, and held against the bucket: all its shards are there, whole.

    Raises:
        DataError: an index or shard is missing, an index is damaged, or a shard is not as long as its index says.
        PlatformError: the store refuses or fails.
    """
    from gkd_core.storage.client import connect
    from gkd_core.storage.download import download_file
    from gkd_core.storage.trees import list_objects

    client = connect()
    for place in places:
        origin, path = sets.place / place, sets.indexes / place / INDEX
        with atomic_file(path) as temporary:
            download_file(client, origin / INDEX, temporary)
            index = ShardIndex.parse(temporary.read_bytes(), str(origin / INDEX))
        sizes = {item.name: item.size for item in list_objects(client, origin)}
        wrong = [shard for shard in index.shards if sizes.get(shard.name) != shard.bytes]
        if wrong:
            has = f"{sizes[wrong[0].name]} bytes" if wrong[0].name in sizes else "none"
            raise DataError(
                f"{origin / wrong[0].name}: its index says {wrong[0].bytes} bytes, the bucket has {has} "
                f"({len(wrong)} of {len(index.shards)} shards are not whole); upload the set again"
            )
