"""The cache of a node: whole or not at all, once for all processes, never above its bound, and never from under a reader."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from gkd_core.errors import DataError, PlatformError
from gkd_core.storage.client import Patience
from gkd_core.storage.download import Expected
from gkd_core.storage.shard_cache import Fetch, ShardCache

FORK = multiprocessing.get_context("fork")
QUICK = Patience(base_seconds=0.3)


def body(number: int, size: int = 1000) -> bytes:
    return random.Random(number).randbytes(size)


def expected(number: int, size: int = 1000) -> Expected:
    return Expected(size, hashlib.sha256(body(number, size)).hexdigest())


def fetching(number: int, log: Path | None = None, size: int = 1000, seconds: float = 0.0) -> Fetch:
    def fetch(stream: BinaryIO) -> None:
        if log is not None:
            with log.open("a") as lines:
                lines.write(f"{number}\n")
        stream.write(body(number, size)[: size // 2])
        time.sleep(seconds)
        stream.write(body(number, size)[size // 2 :])

    return fetch


def held_bytes(folder: Path) -> int:
    """What the files have together, without those that go while we look."""
    total = 0
    for path in folder.glob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def shards(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.shard")}


def test_a_shard_is_fetched_once_and_read_from_then_on(tmp_path: Path) -> None:
    cache, log = ShardCache(tmp_path / "cache", 5000), tmp_path / "log"
    for _ in range(2):
        hold = cache.hold(expected(1), fetching(1, log))
        assert hold.path.read_bytes() == body(1)
        hold.release()
    cache.bring(expected(1), fetching(1, log))
    assert log.read_text() == "1\n"


def test_the_longest_unused_goes_first_and_what_is_held_stays(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 3000)
    first = cache.hold(expected(0), fetching(0))
    for number in (1, 2):
        cache.bring(expected(number), fetching(number))
    cache.bring(expected(1), fetching(1))  # used again: 2 is now the longest unused of those that nobody holds
    cache.bring(expected(3), fetching(3))
    assert shards(tmp_path) == {expected(number).sha256 for number in (0, 1, 3)}
    assert first.path.read_bytes() == body(0)
    first.release()
    cache.bring(expected(4), fetching(4))
    assert shards(tmp_path) == {expected(number).sha256 for number in (1, 3, 4)}


def test_no_room_is_an_error_in_time_and_evicts_nothing_in_use(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 2500, QUICK)
    holds = [cache.hold(expected(number), fetching(number)) for number in (0, 1)]
    began = time.monotonic()
    with pytest.raises(PlatformError, match=r"no room for 1000 bytes within compute\.shard_cache_bytes \(2500\)"):
        cache.hold(expected(2), fetching(2))
    assert time.monotonic() - began < 5
    assert [hold.path.read_bytes() for hold in holds] == [body(0), body(1)]
    holds[0].release()
    assert cache.hold(expected(2), fetching(2)).path.read_bytes() == body(2)


def test_what_fails_leaves_nothing_and_can_be_tried_again(tmp_path: Path) -> None:
    def failing(stream: BinaryIO) -> None:
        stream.write(b"half")
        raise DataError("broken")

    cache = ShardCache(tmp_path, 1000)
    with pytest.raises(DataError, match="broken"):
        cache.hold(expected(1), failing)
    assert not list(tmp_path.glob("*.part")) and not shards(tmp_path)
    assert cache.hold(expected(1), fetching(1)).path.read_bytes() == body(1)


def test_a_shard_that_a_crash_cut_short_is_fetched_anew(tmp_path: Path) -> None:
    (tmp_path / f"{expected(1).sha256}.shard").write_bytes(b"")
    assert ShardCache(tmp_path, 1000).hold(expected(1), fetching(1)).path.read_bytes() == body(1)


def test_a_disk_that_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PlatformError, match=r"file/cache: shards cannot be kept there .* compute\.shard_cache"):
        ShardCache(tmp_path / "file/cache", 1000).hold(expected(1), fetching(1))


def test_many_processes_fetch_a_shard_once(tmp_path: Path) -> None:
    cache, log = ShardCache(tmp_path / "cache", 5000), tmp_path / "log"

    def read() -> None:
        hold = cache.hold(expected(1), fetching(1, log, seconds=0.2))
        os._exit(0 if hold.path.read_bytes() == body(1) else 1)

    assert run_all([read] * 5) == [0] * 5
    assert log.read_text() == "1\n"


def test_who_reads_ahead_does_not_wait_for_another(tmp_path: Path) -> None:
    cache, log = ShardCache(tmp_path / "cache", 5000), tmp_path / "log"
    with in_process(lambda: cache.bring(expected(1), fetching(1, log, seconds=2))):
        wait_for(log.exists)
        began = time.monotonic()
        cache.bring(expected(1), fetching(1, log))
        assert time.monotonic() - began < 1
    assert log.read_text() == "1\n"


def test_the_bound_holds_and_readers_see_whole_shards_whatever_the_processes_do(tmp_path: Path) -> None:
    """Three processes read 12 shards of different sizes at random through a cache of 5000 bytes, with a watcher beside them."""
    cache, over = ShardCache(tmp_path, 5000), []
    sizes = [600 + 100 * number for number in range(12)]
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            over.append(held_bytes(tmp_path))

    def read() -> None:
        draws = random.Random(os.getpid())
        for _ in range(60):
            number = draws.randrange(12)
            hold = cache.hold(expected(number, sizes[number]), fetching(number, None, sizes[number], 0.001))
            time.sleep(draws.random() * 0.004)
            if hold.path.read_bytes() != body(number, sizes[number]):
                os._exit(1)
            hold.release()
        os._exit(0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert run_all([read] * 3) == [0] * 3
    finally:
        stop.set()
        watcher.join()
    assert 4000 < max(over) <= 5000
    assert not list(tmp_path.glob("*.part"))


def test_a_process_that_ends_while_it_reads_ahead_leaves_nothing_unfinished(tmp_path: Path) -> None:
    cache, log = ShardCache(tmp_path / "cache", 5000), tmp_path / "log"

    def read() -> None:
        cache.bring(expected(1), fetching(1))
        threading.Thread(target=lambda: cache.bring(expected(2), fetching(2, log, seconds=60)), daemon=True).start()
        wait_for(log.exists)
        assert list((tmp_path / "cache").glob("*.part"))

    assert run_all([read]) == [0]
    assert not list((tmp_path / "cache").glob("*.part"))
    assert shards(tmp_path / "cache") == {expected(1).sha256}


def test_what_a_killed_process_left_is_swept_when_room_is_needed(tmp_path: Path) -> None:
    cache, log = ShardCache(tmp_path / "cache", 1500), tmp_path / "log"
    with in_process(lambda: cache.bring(expected(1), fetching(1, log, seconds=60))) as child:
        wait_for(log.exists)
        child.kill()
        child.join()
    assert [path.stat().st_size for path in (tmp_path / "cache").glob("*.part")] == [1000]
    assert cache.hold(expected(2), fetching(2)).path.read_bytes() == body(2)
    assert not list((tmp_path / "cache").glob("*.part"))


def test_a_forked_process_does_not_keep_what_its_parent_lets_go(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 1000, QUICK)
    hold = cache.hold(expected(1), fetching(1))
    with in_process(lambda: time.sleep(60)):
        hold.release()
        assert cache.hold(expected(2), fetching(2)).path.read_bytes() == body(2)


def run_all(targets: list[Callable[[], None]]) -> list[int | None]:
    children = [FORK.Process(target=target) for target in targets]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    return [child.exitcode for child in children]


@contextmanager
def in_process(target: Callable[[], None]) -> Iterator[multiprocessing.process.BaseProcess]:
    """Run it in a forked process, which ends with the block at the latest."""
    child = FORK.Process(target=target)
    child.start()
    try:
        yield child
    finally:
        child.kill()
        child.join()


def wait_for(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
