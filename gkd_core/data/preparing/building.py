"""Builds the shards and index of a planned set: in parallel, resumed where it was stopped, visible only when complete."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from gkd_core.data.catalog.load import Domain
from gkd_core.data.files.blobs import DataFile, LocalShards, Member, read_bytes
from gkd_core.data.files.shards import INDEX, Members, Shard, ShardIndex, key_of
from gkd_core.data.preparing.conversion import Conversion, Source
from gkd_core.data.preparing.plan import SetPlan, plan_domain
from gkd_core.data.preparing.tar import Tar, find_tar, space_of, write_tar
from gkd_core.data.preparing.workers import ShareOut, sharing
from gkd_core.errors import DataError
from gkd_core.files import settle, sweep
from gkd_core.notes import remove
from gkd_core.system.locks import try_lock

Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
PART_FILES = 64  # source files that are converted together; of pictures that are cut into tiles, one


def prepare_domains(
    domains: Sequence[Domain],
    root: Path,
    output: Path,
    *,
    shrunk: Sequence[str],
    shard_bytes: int,
    jobs: int,
    bar: Bar,
    say: Callable[[str], None],
) -> None:
    """Write the sets of every domain, found below `root`, into the folder `output`.

    Those of `shrunk` are brought to the sizes at which they are evaluated. All of them are listed, and what is there already
    is looked at, before anything is written.

    Raises:
        DataError: a dataset is not whole, a file is damaged, there is no room, or `output` holds other sets.
    """
    plans = [plan for domain in domains for plan in plan_domain(domain, root, domain.reference in shrunk, shard_bytes)]
    found = [finished_index(plan, output) for plan in plans]
    with sharing(jobs) as share_out:
        for plan, index in zip(plans, found, strict=True):
            if index is not None:
                say(f"{plan.place}: up to date ({_size(index)})")
            else:
                say(f"{plan.place}: {_size(build_set(plan, output, share_out, bar))}")


def _size(index: ShardIndex) -> str:
    amount = sum(shard.bytes for shard in index.shards) / 1e6
    return f"{len(index.members.names)} files in {len(index.shards)} shards, {amount:.1f} MB"


class Packed(NamedTuple):
    """A file to pack: its name in the shard, where its content lies now, and its size in bytes."""

    name: str
    file: DataFile
    size: int


def finished_index(plan: SetPlan, root: Path) -> ShardIndex | None:
    """The index of the set where it is there and up to date; None where there is no set.

    Up to date is a set of the same declarations, options, names and sizes of files, none of which changed since it was begun.

    Raises:
        DataError: there is another or a damaged set, or something else.
    """
    folder = root / plan.place
    if not folder.exists():
        return None
    if not (folder / INDEX).is_file():
        raise DataError(f"{folder}: is in the way, it holds no set of shards; remove it, or give another --output")
    index = ShardIndex.read(folder / INDEX)
    begun = (folder / INDEX).stat().st_mtime_ns
    if index.source != plan.source_digest or any(source.file.stat().st_mtime_ns > begun for source in plan.sources):
        raise DataError(
            f"{folder}: was prepared from other files or with other options, and training may be reading it; "
            "remove it, or give another --output"
        )
    for shard in index.shards:
        path = folder / shard.name
        if not path.is_file() or path.stat().st_size != shard.bytes:
            raise DataError(f"{path}: missing or cut short; remove {folder} and prepare it again, or fetch it")
    return index


def build_set(plan: SetPlan, root: Path, share_out: ShareOut, bar: Bar) -> ShardIndex:
    """Write a set that is not there yet. Its bytes do not depend on who shares out its work, nor on how often it was stopped.

    Unfinished work lies in a hidden folder beside the set; converted files are kept there until all shards are written.

    Raises:
        DataError: a file cannot be converted, there is no room, or the set is being written by another process.
    """
    folder = root / plan.place
    state = folder.parent / f".{plan.content}.{plan.state_digest}.partial"
    with _alone(folder.parent):
        finished = finished_index(plan, root)  # by another process, meanwhile
        if finished is not None:
            return finished
        _remove_others(state)
        state.mkdir(exist_ok=True)
        sweep(state)
        begun = _begin(state)
        if not _is_written(state / INDEX):
            index = _write_shards(plan, state, share_out, bar)
            index.write(state / INDEX)
        index = ShardIndex.read(state / INDEX)
        os.utime(state / INDEX, ns=(begun, begun))
        _remove_all_but(state, {INDEX, *(shard.name for shard in index.shards)})
        settle(state, folder)
    return index


def _is_written(path: Path) -> bool:
    """Whether an earlier run has come as far as to write the index; a damaged one is removed, it follows from the shards."""
    try:
        ShardIndex.read(path)
    except (DataError, OSError):
        remove(path)
        return False
    return True


def _write_shards(plan: SetPlan, state: Path, share_out: ShareOut, bar: Bar) -> ShardIndex:
    members = _members(plan, state, share_out, bar)
    groups = _dealt(members, plan)
    tasks = [
        (number, [(members[place].name, members[place].file, members[place].size) for place in group])
        for number, group in enumerate(groups)
    ]
    stem = f"{plan.dataset}-{plan.split}-{plan.content}"
    with bar(f"pack {plan.place}", len(tasks)) as advance:
        tars = share_out(partial(_pack, state, stem), tasks, advance)
    where = {}
    for number, (group, tar) in enumerate(zip(groups, tars, strict=True)):
        for place, packed in zip(group, tar.places, strict=True):
            where[place] = (number, packed.offset)
    return ShardIndex(
        dataset=plan.dataset,
        split=plan.split,
        content=plan.content,
        source=plan.source_digest,
        preparation=plan.conversion.preparation,
        train_ids=plan.train_ids,
        shards=tuple(Shard(name=tar.path.name, bytes=tar.bytes, sha256=tar.sha256) for tar in tars),
        members=Members(
            names=tuple(member.name for member in members),
            shards=tuple(where[place][0] for place in range(len(members))),
            offsets=tuple(where[place][1] for place in range(len(members))),
            sizes=tuple(member.size for member in members),
        ),
    )


def _members(plan: SetPlan, state: Path, share_out: ShareOut, bar: Bar) -> list[Packed]:
    """What the set holds, in the dataset's order: the files themselves, or what they were converted to."""
    conversion = plan.conversion
    if conversion.keeps_files:
        return [Packed(conversion.kept_name(source), source.file, source.file.stat().st_size) for source in plan.sources]
    size = PART_FILES if conversion.preparation.tiles is None else 1
    tasks = [(first, plan.sources[first : first + size]) for first in range(0, len(plan.sources), size)]
    with bar(f"convert {plan.place}", len(tasks)) as advance:
        parts = share_out(partial(_convert, state, f"{plan.dataset}/{plan.split}", conversion), tasks, advance)
    store = LocalShards(state)
    return [
        Packed(name, Member(store, tar.path.name, name, offset, size), size) for tar in parts for name, offset, size in tar.places
    ]


def _convert(state: Path, domain: str, conversion: Conversion, task: tuple[int, Sequence[Source]]) -> Tar:
    """Convert files, or find what an earlier run made of them."""
    first, sources = task
    stem = f"part-{first:08d}"
    return find_tar(state, stem) or write_tar(state, stem, _converted(domain, conversion, sources))


def _converted(domain: str, conversion: Conversion, sources: Sequence[Source]) -> Iterator[tuple[str, bytes]]:
    for source in sources:
        try:
            yield from conversion(source)
        except DataError as error:
            raise DataError(f"{error}; gkd data verify {domain} finds all that is wrong") from None


def _pack(state: Path, stem: str, task: tuple[int, Sequence[tuple[str, DataFile, int]]]) -> Tar:
    """Write a shard, or find the one that an earlier run wrote."""
    number, members = task
    name = f"{stem}-{number:05d}"
    return find_tar(state, name) or write_tar(state, name, _contents(members))


def _contents(members: Sequence[tuple[str, DataFile, int]]) -> Iterator[tuple[str, bytes]]:
    for name, file, size in members:
        content = read_bytes(file)
        if len(content) != size:
            raise DataError(f"{file}: has {len(content)} bytes, and had {size} when its size was looked up; run again")
        yield name, content


def _dealt(members: Sequence[Packed], plan: SetPlan) -> list[list[int]]:
    """Numbers of the members in each shard. Drawn by a hash of their keys, so that each shard is a random sample of the dataset;
    an image and its label have the same place in that order."""
    domain = f"{plan.dataset}/{plan.split}"
    order = sorted(range(len(members)), key=lambda place: _draw(domain, key_of(members[place].name)))
    groups: list[list[int]] = []
    room = 0
    for place in order:
        space = space_of(members[place].size)
        if not groups or space > room:
            groups.append([])
            room = plan.shard_bytes
        groups[-1].append(place)
        room -= space
    return groups


def _draw(domain: str, key: str) -> bytes:
    return hashlib.sha256(f"{domain}\n{key}".encode()).digest()


def _begin(state: Path) -> int:
    """When the work in a state folder was begun, in nanoseconds."""
    mark = state / "begun"
    if not mark.exists():
        mark.touch()
    return mark.stat().st_mtime_ns


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder while the block runs; the system lets go of it with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not try_lock(handle):
            raise DataError(f"{folder}: another gkd data prepare is writing it; wait for that one")
        yield
    finally:
        os.close(handle)


def _remove_others(state: Path) -> None:
    """Unfinished work of other inputs cannot be used any more."""
    content = state.name.split(".")[1]
    for other in state.parent.glob(f".{content}.*.partial"):
        if other != state:
            shutil.rmtree(other)


def _remove_all_but(folder: Path, names: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in names:
            remove(path)
