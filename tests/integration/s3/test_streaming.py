"""Training on shards that lie in a bucket: the same bits as from a folder, within the cache's bound, and only what is needed."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from gkd_core.data.catalog.load import Domain
from gkd_core.data.catalog.sources import whole
from gkd_core.data.files.origin import Folders
from gkd_core.data.files.reading import read_label
from gkd_core.data.files.shards import INDEX, Content, Members, Shard, ShardIndex, TrainIds, set_folder, table_digest
from gkd_core.data.order.samples import Reading
from gkd_core.data.order.streaming import shard_of, training_order
from gkd_core.distill.views import ViewMaker
from gkd_core.errors import DataError, SettingsError
from gkd_core.operations.bootstrap.buckets import bootstrap_bucket
from gkd_core.records import sha256_of
from gkd_core.settings import Settings, settings_from_tree
from gkd_core.stages import Recipe, run_stage
from gkd_core.storage.client import connect
from gkd_core.storage.keys import Location
from gkd_core.storage.shard_cache import ShardCache
from gkd_core.storage.shards import S3Shards
from gkd_core.storage.trees import upload_tree
from gkd_core.training.rank import Rank
from gkd_core.versioning.workspace import create_workspace
from tests.integration.s3.faulty_proxy import QUICK, FaultyProxy, failing, sound, truncated, wrong
from tests.reproducing import reproduce

pytestmark = pytest.mark.integration

A_SHARD = 3  # images
ADDRESS = "s3://shards-bucket/v1"
STREAMING = {"lanes": 2, "window": 2}
STAGES = (("distill-proxy", None), ("distill-source", "potsdam-rgb"), ("learn-task", "potsdam-rgb"))


@pytest.fixture(scope="module")
def tree(tiny_tree: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run on one benchmark, with enough images for some shards, and enough updates to read them all twice."""
    world = tiny_tree["data"]["world"] | {"proxy_images": 24, "train_images": 24, "val_images": 3, "target_images": 3}
    return tiny_tree | {
        "data": {"world": world, "benchmarks": ["P2R"]},
        "distill_proxy": tiny_tree["distill_proxy"] | {"updates": 12},
        "learn_task": tiny_tree["learn_task"] | {"updates": 24},
    }


@pytest.fixture(scope="module")
def prepared(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world in shards of a few images each, in a folder."""
    workspace, root = tmp_path_factory.mktemp("world"), tmp_path_factory.mktemp("prepared")
    settings = settings_from_tree(tree)
    recipe = Recipe.of(settings)
    run_stage(recipe, recipe.find("prepare-data"), workspace)
    origin = recipe.origin(workspace)
    assert isinstance(origin, Folders)
    for domain in recipe.domains:
        entry, split = domain.entry, domain.split
        base = entry.dataset_folder(origin.root)
        images = {path.relative_to(base).as_posix(): path.read_bytes() for path in origin.images(domain)}  # type: ignore[union-attr]
        pack(root, entry.name, split, "images", images, None)
        if entry.labels is not None:
            labels = dict(zip(images, labels_of(origin, domain), strict=True))
            taxonomy, table = domain.taxonomy, table_digest(domain.encoding)
            ids = TrainIds(taxonomy=taxonomy.name, classes=taxonomy.classes, encoding=str(entry.encoding), table=table)
            pack(root, entry.name, split, "labels", labels, ids)
    return root


def labels_of(origin: Folders, domain: Domain) -> Iterator[bytes]:
    """Each label as a PNG of train ids."""
    encoding = origin.encoding(domain)
    for pair in origin.pairs(domain):
        content = io.BytesIO()
        Image.fromarray(read_label(pair.label, encoding)).save(content, "PNG")
        yield content.getvalue()


def pack(root: Path, dataset: str, split: str, kind: Content, files: dict[str, bytes], ids: TrainIds | None) -> None:
    """Write a set of shards by Python's own tar."""
    folder = root / set_folder(dataset, split, kind)
    folder.mkdir(parents=True)
    names, shards, rows = list(files), [], []
    for first in range(0, len(names), A_SHARD):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            for name in names[first : first + A_SHARD]:
                info = tarfile.TarInfo(name)
                info.size = len(files[name])
                tar.addfile(info, io.BytesIO(files[name]))
        content.seek(0)
        with tarfile.open(fileobj=content) as tar:
            rows += [(len(shards), info.offset_data, info.size) for info in tar]
        digest = hashlib.sha256(content.getvalue()).hexdigest()
        name = f"{dataset}-{split}-{kind}-{len(shards):05d}-{digest[:16]}.tar"
        (folder / name).write_bytes(content.getvalue())
        shards.append(Shard(name=name, bytes=len(content.getvalue()), sha256=digest))
    numbers, offsets, sizes = (tuple(column) for column in zip(*rows, strict=True))
    members = Members(names=tuple(names), shards=numbers, offsets=offsets, sizes=sizes)
    index = ShardIndex(
        dataset=dataset, split=split, content=kind, source="0" * 64, train_ids=ids, shards=tuple(shards), members=members
    )
    index.write(folder / INDEX)


@pytest.fixture(scope="module")
def in_bucket(prepared: Path, environment: None) -> Path:
    """The folder of shards, which is in the bucket too."""
    client = connect()
    bootstrap_bucket(client, "shards-bucket")
    upload_tree(client, prepared, Location.parse(ADDRESS))
    return prepared


def reading(tree: dict[str, Any], shards: str, cache: Path, limit: int = 10**9, loaders: int = 0, **data: Any) -> Settings:
    """The settings with shards for the world."""
    compute = tree["compute"] | {"loaders": loaders, "shard_cache": str(cache), "shard_cache_bytes": limit}
    origin = tree["data"] | {"world": None, "shards": shards, "streaming": STREAMING} | data
    return settings_from_tree(tree | {"data": origin, "compute": compute})


def train(settings: Settings, workspace: Path) -> dict[str, str]:
    """Digests of all weights that the stages leave."""
    for stage, source in (("prepare-data", None), *STAGES):
        run_stage(Recipe.of(settings), Recipe.of(settings).find(stage, source), workspace)
    files = [path for path in (workspace / "artifacts").rglob("*.safetensors") if "runs" not in path.parts]
    return {path.relative_to(workspace).as_posix(): sha256_of(path) for path in files}


@contextmanager
def watched(folder: Path) -> Iterator[list[int]]:
    """Sizes that the folder has while the block lasts."""
    sizes, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            total = 0
            for path in folder.glob("*"):
                try:
                    total += path.stat().st_size
                except FileNotFoundError:
                    continue
            sizes.append(total)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield sizes
    finally:
        stop.set()
        thread.join()


def largest(prepared: Path) -> int:
    return max(path.stat().st_size for path in prepared.rglob("*.tar"))


@pytest.mark.parametrize(("loaders", "fault"), [(0, sound), (2, failing("503"))], ids=["sound", "loaders, every third 503"])
def test_training_from_a_bucket_equals_training_from_a_folder(
    tree: dict[str, Any], in_bucket: Path, proxy: FaultyProxy, tmp_path: Path, loaders: int, fault: Any
) -> None:
    local = train(reading(tree, str(in_bucket), tmp_path / "unused"), tmp_path / "local")
    # Windows of both lanes, images and labels: half of all that there is.
    limit = 8 * largest(in_bucket)
    assert limit < sum(path.stat().st_size for path in in_bucket.rglob("*.tar"))
    proxy.misbehave(fault)
    cache = tmp_path / "cache"
    with watched(cache) as sizes:
        remote = train(reading(tree, ADDRESS, cache, limit, loaders), tmp_path / "remote")
    assert remote == local
    assert "artifacts/learn-task/potsdam-rgb/segmentor.safetensors" in local
    assert 0 < max(sizes) <= limit
    read = {path.removeprefix("/shards-bucket/v1/").rpartition("/")[0] for path in proxy.objects() if path.endswith(".tar")}
    assert read == {"proxy/all/images", "potsdam-rgb/train/images", "potsdam-rgb/train/labels"}
    if loaders == 0:  # a loader has ended, but a thread of ours may be fetching ahead yet
        wait_for(lambda: not list(cache.glob("*.part")))
    assert not list(cache.glob("*.part"))


def test_a_machine_fetches_only_the_shards_of_its_own_ranks(
    tree: dict[str, Any], in_bucket: Path, proxy: FaultyProxy, tmp_path: Path
) -> None:
    """Two ranks with a cache each, as on two machines: they see what they see from the folder, and share no request."""
    settings = reading(tree, ADDRESS, tmp_path / "cache")
    run_stage(Recipe.of(settings), Recipe.of(settings).find("prepare-data"), tmp_path)
    asked: list[list[str]] = []
    for rank in (Rank(0, 2), Rank(1, 2)):
        proxy.misbehave(sound)
        seen = run_apart(views, reading(tree, ADDRESS, tmp_path / f"cache-{rank.index}"), tmp_path, rank)
        asked.append(sorted(Path(path).name for path in proxy.objects()))
        assert seen == run_apart(views, reading(tree, str(in_bucket), tmp_path / "unused"), tmp_path, rank)
        assert asked[-1] == sorted(needed(settings, tmp_path, rank))
    assert len(asked[0]) == len(asked[1]) == 4  # of 24 images in shards of 3, each once
    assert not set(asked[0]) & set(asked[1])


UPDATES = 12  # of 4 images: each of the 24 comes twice


def views(settings: Settings, workspace: Path, rank: Rank) -> str:
    """Digest of the pixels that a rank sees in all updates."""
    recipe = Recipe.of(settings)
    images = recipe.origin(workspace).images(recipe.catalog.domain(settings.data.proxy))
    streamed = Reading("title", 0, streaming=settings.data.streaming, rank=rank.index, workers=rank.count)
    maker = ViewMaker(settings.distill_proxy, images, streamed, 16)
    torch.set_num_threads(1)
    digest = hashlib.sha256()
    for update in range(UPDATES):
        digest.update(maker(update).images.numpy().tobytes())
    return digest.hexdigest()


def needed(settings: Settings, workspace: Path, rank: Rank) -> set[str]:
    """The shards of a rank's share, from the order alone."""
    recipe = Recipe.of(settings)
    images = recipe.origin(workspace).images(recipe.catalog.domain(settings.data.proxy))
    batch = settings.distill_proxy.batch_size
    order = training_order(images, whole(len(images)), settings.data.streaming, batch, rank.count, 1, "title", 0)
    visits = [visit for update in range(UPDATES) for visit in order.visits(update, batch)[rank.index :: rank.count]]
    return {shard_of(images[visit.sample]) for visit in visits}


def run_apart(function: Any, *arguments: Any) -> Any:
    """In a forked process, whose threads end with it."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(function, arguments)


def test_what_comes_next_is_fetched_in_the_background_and_a_failure_there_is_left_to_the_reader(
    tree: dict[str, Any], in_bucket: Path, proxy: FaultyProxy, tmp_path: Path
) -> None:
    index = ShardIndex.read(in_bucket / "proxy/all/images" / INDEX)
    names = [shard.name for shard in index.shards]
    store = S3Shards(Location.parse(ADDRESS) / index.place, index, ShardCache(tmp_path, 10**6, QUICK))
    began = time.monotonic()
    store.prefetch(names[:3])
    assert time.monotonic() - began < 1
    wait_for(lambda: len(list(tmp_path.glob("*.shard"))) == 3)
    assert [Path(path).name for path in proxy.objects()] == names[:3]
    store.prefetch(names[1:4])
    wait_for(lambda: len(list(tmp_path.glob("*.shard"))) == 4)
    assert [Path(path).name for path in proxy.objects()] == names[:4]
    proxy.misbehave(truncated(0.0))
    store.prefetch(names[4:6])
    with pytest.raises(DataError, match=f"{names[4]}: the reply ended after 0"):
        store.path(names[4])
    proxy.misbehave(sound)
    assert store.path(names[4]).read_bytes() == (in_bucket / index.place / names[4]).read_bytes()
    with pytest.raises(DataError, match="its index has no shard '../x'"):
        store.path("../x")


def wait_for(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_does_not_fit_is_said_at_the_start(tree: dict[str, Any], in_bucket: Path, tmp_path: Path) -> None:
    size = largest(in_bucket)
    for limit, words in ((size - 1, "the largest shard of s3://"), (3 * size, "4 shards, which are read in turn, of s3://")):
        settings = reading(tree, ADDRESS, tmp_path / "cache", limit)
        with pytest.raises(SettingsError, match=rf"compute\.shard_cache_bytes: {limit} bytes, but {words}"):
            train(settings, tmp_path)
    whole = reading(tree, ADDRESS, tmp_path / "cache", 4 * size, streaming=None)
    with pytest.raises(SettingsError, match="8 shards, which are read in turn, .* set a smaller data.streaming.window"):
        train(whole, tmp_path)


def test_indexes_are_held_against_the_bucket(tree: dict[str, Any], in_bucket: Path, tmp_path: Path) -> None:
    settings, client = reading(tree, ADDRESS, tmp_path / "cache"), connect()
    shard = next(iter(sorted((in_bucket / "potsdam-rgb/train/labels").glob("*.tar"))))
    key = f"v1/potsdam-rgb/train/labels/{shard.name}"
    run = Recipe.of(settings).find("prepare-data")
    for damage, words in (
        (lambda: client.put_object(Bucket="shards-bucket", Key=key, Body=b"short"), "has 5 bytes"),
        (lambda: client.delete_object(Bucket="shards-bucket", Key=key), "has none"),
    ):
        damage()
        with pytest.raises(DataError, match=rf"{shard.name}: its index says {shard.stat().st_size} bytes, the bucket {words}"):
            run_stage(Recipe.of(settings), run, tmp_path)
        assert not (tmp_path / "artifacts/data").exists()
    client.put_object(Bucket="shards-bucket", Key="v1/potsdam-rgb/train/labels/index.json", Body=b"{")
    with pytest.raises(DataError, match=r"index\.json: not JSON"):
        run_stage(Recipe.of(settings), run, tmp_path)
    upload_tree(client, in_bucket, Location.parse(ADDRESS))


def test_dvc_trains_again_when_the_bucket_has_other_data_and_not_before(
    tree: dict[str, Any], in_bucket: Path, tmp_path: Path
) -> None:
    no_kd = tree | {"method": "no-kd", "student": tree["student"] | {"weights": "random"}}
    settings = reading(no_kd, ADDRESS, tmp_path / "cache")
    workspace = create_workspace(tmp_path, "run", settings)
    runs = [Recipe.of(settings).find("prepare-data"), Recipe.of(settings).find("learn-task", "potsdam-rgb")]
    assert [path.as_posix() for path in runs[1].inputs] == [
        f"artifacts/data/potsdam-rgb/train/{kind}/index.json" for kind in ("images", "labels")
    ]
    assert [reproduce(workspace, run) for run in runs] == ["ran", "ran"]
    assert [reproduce(workspace, run) for run in runs] == ["ran", "unchanged"]
    index = in_bucket / "potsdam-rgb/train/images/index.json"
    other = index.read_bytes().replace(b"0" * 64, b"1" * 64)
    client = connect()
    client.put_object(Bucket="shards-bucket", Key="v1/potsdam-rgb/train/images/index.json", Body=other)
    assert [reproduce(workspace, run) for run in runs] == ["ran", "ran"]
    upload_tree(client, in_bucket, Location.parse(ADDRESS))


def test_a_stage_before_prepare_data_is_told(tree: dict[str, Any], in_bucket: Path, tmp_path: Path) -> None:
    settings = reading(tree, ADDRESS, tmp_path / "cache")
    with pytest.raises(DataError, match=r"the index of s3://shards-bucket/v1/proxy/all/images is not here; run the"):
        run_stage(Recipe.of(settings), Recipe.of(settings).find("distill-proxy"), tmp_path)


@pytest.mark.parametrize(("fault", "words"), [(truncated(0.0), "ended after 0 of"), (wrong(), "damaged")])
def test_damage_on_the_way_stops_training_with_the_shard_s_name(
    tree: dict[str, Any],
    in_bucket: Path,
    proxy: FaultyProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Any,
    words: str,
) -> None:
    settings = reading(tree, ADDRESS, tmp_path / "cache", loaders=2)
    run_stage(Recipe.of(settings), Recipe.of(settings).find("prepare-data"), tmp_path)
    proxy.misbehave(fault)
    monkeypatch.setattr("gkd_core.storage.download.LONGEST_PAUSE", 0.05)
    with pytest.raises(DataError, match=rf"^s3://shards-bucket/v1/proxy/all/images/proxy-all-images-\d+-\w+\.tar: .*{words}"):
        run_stage(Recipe.of(settings), Recipe.of(settings).find("distill-proxy"), tmp_path)
    assert not list((tmp_path / "cache").glob("*.shard"))
    assert not (tmp_path / "artifacts/distill-proxy").exists()
